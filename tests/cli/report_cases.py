"""Runs to report on, and what can be read off a page without a browser."""

from __future__ import annotations

import base64
from dataclasses import dataclass, field
from html.parser import HTMLParser

HOSTILE = "<script>alert('x')</script><img src=x onerror=alert(1)>\"'&amp;\x1b[2J\u202e"

#: A probe that speaks and draws; what it is to do wrong is a parameter.
SPEAKER = '''
    import numpy as np
    import equivengine as eqv
    from pydantic import Field

    EQUIVENGINE_API = (1, 0)
    TEXT = {text!r}

    class SpeakerParams(eqv.Params):
        wrong: str = Field("", description="What goes wrong.")
        gain: float = Field(1.0, description="A factor.")

    class Speaker(eqv.Probe[SpeakerParams]):
        """Says what it is told."""

        name = "speaker"
        version = "{version}"
        summary = "says things " + TEXT
        Params = SpeakerParams

        def run(self, task):
            x = task.samples[0]
            mean = float(x.mean()) * task.params.gain
            pictures = {{
                "original": eqv.pictures.picture(x, "the original " + TEXT),
                "matched": eqv.pictures.picture(1 - x, "another one " + TEXT),
            }}
            return eqv.ProbeResult(
                {{"row": eqv.Array(x.flatten().numpy(), ("pixel",), "1", "all pixels " + TEXT)}},
                {{
                    "mean": eqv.Scalar(
                        mean, "px " + TEXT, "mean of the pixels " + TEXT, (mean - 1, mean + 1), 64, "g " + TEXT
                    )
                }},
                {{"small": eqv.Check.at_most(mean, 0.0 if task.params.wrong == "check" else 10.0, "not much " + TEXT)}},
                status="not_converged" if task.params.wrong == "status" else "ok",
                message="try again " + TEXT if task.params.wrong == "status" else "",
                pictures=pictures,
            )

        @classmethod
        def headlines(cls, params):
            if params.wrong == "headlines":
                raise ValueError("no headlines")
            return {{"mean": "mean " + TEXT, "absent": "not there " + TEXT}}

        def findings(self, summary, params):
            if params.wrong == "findings":
                raise SystemExit("no words")
            if params.wrong == "one sentence":
                return "It is small."
            return [f"The mean is {{summary['mean'].value:.3f}}. " + TEXT]

        def overview(self, results):
            if any("overview" in unit.params for unit, _ in results):
                raise ValueError("no overview")
            last = eqv.settings([unit for unit, _ in results])[-1]
            return {{f"over {{len(results)}} units {{last}} " + TEXT: self._figure()}}

        def figures(self, result):
            if TEXT == "not a figure":
                return {{"f": None}}
            return {{"pixels " + TEXT: self._figure()}}

        def _figure(self):
            from matplotlib.figure import Figure

            figure = Figure(figsize=(2, 1))
            figure.subplots().plot([1, 2, 3])
            return figure

    @eqv.hookimpl
    def equivengine_register_probes():
        return [Speaker]
'''


@dataclass
class Read(HTMLParser):
    """A page, taken apart."""

    page: str
    tags: list[tuple[str, dict[str, str | None]]] = field(default_factory=list)
    text: str = ""

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self._styles = 0
        self.feed(self.page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._styles += tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._styles -= tag == "style"

    def handle_data(self, data: str) -> None:
        if not self._styles:
            self.text += data

    @property
    def words(self) -> str:
        """Its text on one line."""
        return " ".join(self.text.split())

    def all(self, tag: str, cls: str = "") -> list[dict[str, str | None]]:
        """Attributes of all elements of a kind."""
        return [attrs for name, attrs in self.tags if name == tag and cls in (attrs.get("class") or "")]

    def images(self) -> list[bytes]:
        """All PNG files, in order."""
        return [base64.b64decode((a["src"] or "").removeprefix("data:image/png;base64,")) for a in self.all("img")]
