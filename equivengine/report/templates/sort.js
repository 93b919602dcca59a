"use strict";
const table = document.getElementById("board");
const body = table.tBodies[0];
const heads = [...table.tHead.rows[0].cells];
const rows = [...body.rows];
const keyOf = (row, column) => {
  const key = row.cells[column].dataset.key;
  return column === 0 ? key : key === "" ? null : Number(key);
};
const sort = (column, down) => {
  const order = (a, b) => {
    const one = keyOf(a, column), other = keyOf(b, column);
    if (one === null || other === null) return (one === null) - (other === null);
    const sign = one < other ? -1 : one > other ? 1 : 0;
    return (down ? -sign : sign) || rows.indexOf(a) - rows.indexOf(b);
  };
  body.append(...[...rows].sort(order));
  heads.forEach((head, place) => {
    if (place === column) head.setAttribute("aria-sort", down ? "descending" : "ascending");
    else head.removeAttribute("aria-sort");
  });
};
heads.forEach((head, column) => {
  const button = document.createElement("button");
  button.type = "button";
  button.title = "Sort by this column";
  button.append(...head.childNodes);
  head.append(button);
  button.addEventListener("click", () => {
    const before = head.getAttribute("aria-sort");
    sort(column, column === 0 ? before === "ascending" : before !== "descending");
  });
});
document.getElementById("how").hidden = false;
