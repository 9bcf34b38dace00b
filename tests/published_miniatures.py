"""Miniatures of data sets, each in the folder shape in which it is published."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

from PIL import Image

SIZE_WH = (32, 24)


BOX = (4, 5, 14, 13)


def picture(path: Path, level: int = 90) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE_WH, (level, level, level)).save(path)
    return path


def mask(path: Path, value: int = 255, box: tuple[int, int, int, int] | None = BOX) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn = Image.new("L", SIZE_WH)
    if box is not None:
        drawn.paste(value, box)
    drawn.save(path)
    return path


def write_mvtec(root: Path) -> None:
    picture(root / "bottle/train/good/000.png")
    picture(root / "bottle/test/good/000.png")
    picture(root / "bottle/test/broken_large/000.png")
    mask(root / "bottle/ground_truth/broken_large/000_mask.png")


def write_goodsad(root: Path) -> None:
    picture(root / "food_box/train/good/063_001.jpg")
    picture(root / "food_box/test/good/063_002.jpg")
    picture(root / "food_box/test/opened/063_017.jpg")
    mask(root / "food_box/ground_truth/opened/063_017.png")


def write_btad(root: Path) -> None:
    picture(root / "01/train/ok/0000.bmp")
    picture(root / "01/test/ok/0001.bmp")
    picture(root / "01/test/ko/0002.bmp")
    mask(root / "01/ground_truth/ko/0002.png")


def write_mpdd(root: Path) -> None:
    picture(root / "tubes/train/good/000.png")
    picture(root / "tubes/test/good/000.png")
    picture(root / "tubes/test/anomalous/000.png")
    mask(root / "tubes/ground_truth/anomalous/000_mask.png")


def write_loco(root: Path) -> None:
    folder = root / "screw_bag"
    for name in ("train/good/000", "test/good/000", "test/logical_anomalies/000"):
        picture(folder / f"{name}.png")
    picture(folder / "validation/good/000.png")
    mask(folder / "ground_truth/logical_anomalies/000/000.png", 254)
    mask(folder / "ground_truth/logical_anomalies/000/001.png", 240, (20, 2, 30, 12))
    config = [
        {
            "defect_name": "missing_screw",
            "pixel_value": 254,
            "saturation_threshold": 50,
            "relative_saturation": False,
        },
        {
            "defect_name": "long_screw",
            "pixel_value": 240,
            "saturation_threshold": 0.25,
            "relative_saturation": True,
        },
    ]
    (folder / "defects_config.json").write_text(json.dumps(config))


def write_visa(root: Path) -> None:
    names = {
        "train": "candle/Data/Images/Normal/0001.JPG",
        "test": "candle/Data/Images/Normal/0002.JPG",
        "bad": "candle/Data/Images/Anomaly/000.JPG",
    }
    for name in names.values():
        picture(root / name)
    mask(root / "candle/Data/Masks/Anomaly/000.png", 3)
    lines = [
        "object,split,label,image,mask",
        f"candle,train,normal,{names['train']},",
        f"candle,test,normal,{names['test']},",
        f"candle,test,anomaly,{names['bad']},candle/Data/Masks/Anomaly/000.png",
    ]
    (root / "split_csv").mkdir()
    for protocol in ("1cls", "2cls_fewshot", "2cls_highshot"):
        (root / f"split_csv/{protocol}.csv").write_text("\n".join(lines))
    details = f'image,label,mask\n{names["bad"]},"wax melded out, chunk",m.png\n'
    (root / "candle/image_anno.csv").write_text(details)


def write_kolektor_sdd(root: Path) -> None:
    for number in range(1, 28):
        picture(root / f"kos{number:02}/Part0.jpg")
        mask(root / f"kos{number:02}/Part0_label.bmp", box=BOX if number == 3 else None)


def write_kolektor_sdd2(root: Path) -> None:
    for split, number, box in (
        ("train", 10000, None),
        ("train", 10001, BOX),
        ("test", 20000, None),
        ("test", 20001, BOX),
    ):
        picture(root / f"{split}/{number}.png")
        mask(root / f"{split}/{number}_GT.png", box=box)


def write_dagm(root: Path) -> None:
    for split, number, defective in (
        ("Train", 576, False),
        ("Train", 577, True),
        ("Test", 1, False),
        ("Test", 2, True),
    ):
        folder = root / "Class1" / split
        picture(folder / f"{number:04}.PNG")
        line = f"{number}\t{int(defective)}\t{number:04}.PNG\t0\t0"
        if defective:
            mask(folder / f"Label/{number:04}_label.PNG")
            line = line[:-1] + f"{number:04}_label.PNG"
        (folder / "Label").mkdir(exist_ok=True)
        with (folder / "Label/Labels.txt").open("a") as labels:
            labels.write(line + "\n")


def write_deeppcb(root: Path) -> None:
    data = root / "PCBData"
    for number in ("00041000", "00041001"):
        picture(data / f"group00041/00041/{number}_test.jpg")
        picture(data / f"group00041/00041/{number}_temp.jpg")
        (data / "group00041/00041_not").mkdir(exist_ok=True)
        (data / f"group00041/00041_not/{number}.txt").write_text("4 5 14 13 3\n")
    line = "group00041/00041/{0}.jpg group00041/00041_not/{0}.txt\n"
    (data / "trainval.txt").write_text(line.format("00041000"))
    (data / "test.txt").write_text(line.format("00041001"))


def write_realiad(root: Path) -> None:
    folder = root / "realiad_1024/audiojack"
    bad = "NG/BX/S0001/audiojack_0001_NG_BX_C1_2"
    names = ["OK/S0001/audiojack_0001_OK_C1_1.jpg", "OK/S0002/audiojack_0002_OK_C1_1.jpg"]
    for name in (*names, f"{bad}.jpg"):
        picture(folder / name)
    mask(folder / f"{bad}_mask.png")

    def entry(name: str, kind: str, mask_path: str | None) -> dict[str, str | None]:
        return {
            "category": "audiojack",
            "anomaly_class": kind,
            "image_path": name,
            "mask_path": mask_path,
        }

    lists = {
        "meta": {"normal_class": "OK", "prefix": "audiojack/"},
        "train": [entry(names[0], "OK", None)],
        "test": [entry(names[1], "OK", None), entry(f"{bad}.jpg", "BX", f"{bad}_mask.png")],
    }
    target = root / "realiad_jsons/realiad_jsons"
    target.mkdir(parents=True)
    (target / "audiojack.json").write_text(json.dumps(lists))


def write_coco(root: Path) -> None:
    picture(root / "images/a.jpg")
    picture(root / "images/b.jpg")
    document = {
        "images": [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}],
        "categories": [{"id": 7, "name": "scratch"}],
        "annotations": [{"id": 1, "image_id": 2, "category_id": 7, "bbox": [4, 5, 10, 8]}],
    }
    (root / "instances.json").write_text(json.dumps(document))


def write_yolo(root: Path) -> None:
    for name in ("train/a", "test/b", "test/c"):
        picture(root / f"images/{name}.jpg")
    (root / "labels/test").mkdir(parents=True)
    (root / "labels/test/b.txt").write_text("1 0.28125 0.375 0.3125 0.3333333333333333\n")
    (root / "labels/test/c.txt").write_text("0 0.125 0.25 0.5 0.25 0.5 0.75\n")
    (root / "data.yaml").write_text("names: {0: dent, 1: scratch}\n")


def write_csv(root: Path) -> None:
    picture(root / "a.png")
    picture(root / "b.png")
    mask(root / "b_mask.png")
    head = "image,label,mask,category,split,defect_type,references\n"
    rows = "a.png,normal,,nut,test,,\nb.png,anomalous,b_mask.png,nut,test,dent,a.png\n"
    (root / "parts.csv").write_text(head + rows)


def write_classes(root: Path) -> None:
    picture(root / "ok/a.png")
    picture(root / "dent/b.png")
    mask(root / "ground_truth/dent/b.png")


def write_folder(root: Path) -> None:
    picture(root / "line/a.png")


WRITERS: dict[str, tuple[Callable[[Path], None], str, tuple[int, int, int]]] = {
    "mvtec": (write_mvtec, "", (1, 1, 1)),
    "goodsad": (write_goodsad, "", (1, 1, 1)),
    "btad": (write_btad, "", (1, 1, 1)),
    "mpdd": (write_mpdd, "", (1, 1, 1)),
    "loco": (write_loco, "", (1, 1, 1)),
    "visa": (write_visa, "", (1, 1, 1)),
    "visa-2cls-fewshot": (write_visa, "", (1, 1, 1)),
    "visa-2cls-highshot": (write_visa, "", (1, 1, 1)),
    "kolektorsdd": (write_kolektor_sdd, "", (24, 2, 1)),
    "kolektorsdd2": (write_kolektor_sdd2, "", (2, 1, 1)),
    "dagm": (write_dagm, "", (2, 1, 1)),
    "deeppcb": (write_deeppcb, "", (1, 0, 1)),
    "realiad": (write_realiad, "", (1, 1, 1)),
    "coco": (write_coco, "instances.json", (0, 1, 1)),
    "yolo": (write_yolo, "", (1, 0, 2)),
    "csv": (write_csv, "parts.csv", (0, 1, 1)),
    "classes": (write_classes, "", (0, 1, 1)),
    "folder": (write_folder, "", (0, 0, 0)),
}
"""Layout to how it is drawn, the file to name, and its train, normal and anomalous pictures."""
