"""The form of the authors of VPT, which their fork of LLaMA-Factory reads: a list of images for each encoder.

A crop is a path with its box at the end, `PATH_x0,y0,x1,y1`, in pixels of the stored image; the fork cuts it. It finds
the path of a crop only as it is: absolute, or relative to where it runs.
"""

from __future__ import annotations

from typing import Any, Final

from vpt_data.exchange.exporters.exporter import Exporter, Pictures, Row, Unsayable
from vpt_data.exchange.exporters.llamafactory import dataset_info
from vpt_data.exchange.published.lint import image_lists

_ROLES: Final = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def _record(row: Row, pictures: Pictures) -> dict[str, Any]:
    if row["messages"][0]["role"] == "system":
        raise Unsayable("it has a system turn")
    names = image_lists()
    lists: dict[str, list[str]] = {name: [] for name in ("images", "detection_images", "seg_images", "clip_images")}
    for view in row["views"]:
        path = pictures.path(row, view["image"])
        if view["box"] is not None:
            if view["cells"] is None:
                raise Unsayable("it has a crop that no region tokens name")
            if "." not in path.rpartition("/")[2]:
                raise Unsayable("the path of a crop has no extension, which the fork needs to find its box")
            path += "_" + ",".join(map(str, view["box"]))
        lists[names[view["encoder"]]].append(path)
    # The order of the keys is that of the published rows.
    return {"messages": [{"content": turn["content"], "role": turn["role"]} for turn in row["messages"]], **lists}


def _beside(splits: list[str]) -> dict[str, bytes]:
    files = {split: EXPORTER.file(split) for split in splits}
    return dataset_info(files, ["messages", *image_lists().values()], _ROLES)


EXPORTER: Final = Exporter(
    record=_record,
    lines=False,
    crops="a box at the end of the path, in pixels of the stored image",
    loss="rows with a system turn, or with a crop that no region tokens name, are left out",
    follows="yu-rp/VisualPerceptionToken 48b64de",
    beside=_beside,
)
