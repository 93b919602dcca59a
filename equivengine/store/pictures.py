"""Pictures of a unit: uint8 datasets that viewers show as images (HDF5 Image and Palette Specification, 1.2)."""

from __future__ import annotations

from collections.abc import Mapping

import h5py
import numpy as np

from equivengine.contracts.result import MAX_PICTURE_NAME, Picture, is_picture_name
from equivengine.pictures.raster import shape_problem
from equivengine.store import elements, guard, nodes, refusal, schema

_GREY = {"CLASS": "IMAGE", "IMAGE_VERSION": "1.2", "IMAGE_SUBCLASS": "IMAGE_GRAYSCALE"}
_COLOUR = {**_GREY, "IMAGE_SUBCLASS": "IMAGE_TRUECOLOR", "INTERLACE_MODE": "INTERLACE_PIXEL"}


def write_pictures(unit: h5py.Group, given: Mapping[str, Picture]) -> None:
    """Write the group ``pictures`` of a unit; none if there are no pictures.

    Raises:
        PluginError: If a description cannot be stored.
    """
    if not given:
        return
    group = elements.new_group(unit, schema.PICTURES, "pictures")
    for name, picture in given.items():
        node = elements.write_values(group, name, picture.levels, "picture")
        elements.set_text(node, "description", picture.description)
        for key, value in (_GREY if picture.levels.ndim == 2 else _COLOUR).items():
            node.attrs.create(key, np.bytes_(value))
        if picture.levels.ndim == 2:
            node.attrs["IMAGE_WHITE_IS_ZERO"] = np.uint8(0)


def picture_names(unit: h5py.Group) -> list[str]:
    """Names of a unit's pictures, in order; none where there is no group of them (format 1.0 has none).

    Raises:
        Refused, StoreError: If a name is not usable (it becomes the name of a file), or this is something else.
    """
    if not guard.has(unit, schema.PICTURES):
        return []
    group = guard.group(unit, schema.PICTURES)
    elements.expect(group, "pictures")
    found = [name for name in guard.names(group) if guard.encoding(group, name) == "picture"]
    for name in found:
        if not is_picture_name(name):
            raise refusal.Refused(
                f"a picture is called {name[:80]!r}", f"an ASCII identifier of at most {MAX_PICTURE_NAME} characters"
            )
    return found


def picture_node(unit: h5py.Group, name: str) -> h5py.Dataset:
    """The dataset of one picture, of which no value has been read.

    Raises:
        Refused, StoreError: If it is something else, or too large.
    """
    node = guard.dataset(guard.group(unit, schema.PICTURES), name)
    elements.expect(node, "picture")
    problem = "uint8" if node.dtype != np.uint8 else shape_problem(node.shape)
    if problem is not None:
        raise refusal.Refused(f"picture {node.name} is {node.dtype} {node.shape}", problem)
    return node


def read_picture(unit: h5py.Group, name: str) -> Picture:
    """Read one picture of a unit.

    Raises:
        Refused, StoreError: If it is something else, or too large.
    """
    node = picture_node(unit, name)
    return Picture(np.asarray(node[()]), guard.text(node, "description"))


def copy_pictures(source: h5py.Group, target: h5py.Group) -> None:
    """Copy the pictures of a unit into another file without unpacking them.

    Args:
        source: A unit's group in a file opened by `guard`.
        target: The unit's group in the file being made.
    """
    names = picture_names(source)
    if names:
        group, made = guard.group(source, schema.PICTURES), elements.new_group(target, schema.PICTURES, "pictures")
        for name in names:
            nodes.copy(guard.dataset(group, name), made, name)
