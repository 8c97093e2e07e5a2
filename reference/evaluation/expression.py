"""Whether images show the requested expression, as two judges read them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torch import nn

from reference import classifiers
from reference.evaluation import statistics
from reference.tasks import CLASSES
from synfer_rt.vocabulary import label_schemes

FER_CLASSES = label_schemes.scheme("fer2013-csv")


def fer_predict(model_file: Path, images_u8: np.ndarray) -> np.ndarray:
    """Class indices [n] in FER_CLASSES order by the photo-trained mini-xception.

    It reads 64x64 grey images scaled to [-1, 1].
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(model_file), num_threads=1)
    interpreter.allocate_tensors()
    entry, result = interpreter.get_input_details()[0], interpreter.get_output_details()[0]
    size = int(entry["shape"][1])
    best = []
    for image in images_u8:
        grey = Image.fromarray(image).convert("L").resize((size, size), Image.Resampling.BILINEAR)
        pixels = (np.asarray(grey, np.float32) / 255 - 0.5) * 2
        interpreter.set_tensor(entry["index"], pixels[None, :, :, None])
        interpreter.invoke()
        best.append(int(interpreter.get_tensor(result["index"])[0].argmax()))
    return np.array(best)


def fer_reading(
    model_file: Path, images_u8: np.ndarray, classes: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`fer_predict` for the images whose class it knows, their true classes, and which they are.

    `classes` are indices int64 [n] into CLASSES; the true classes are indices into FER_CLASSES.
    """
    known = classes != CLASSES.index("contempt")
    truth = np.array([FER_CLASSES.index(CLASSES[c]) for c in classes[known]])
    return fer_predict(model_file, images_u8[known]), truth, known


def fer_accuracy(
    model_file: Path, images_u8: np.ndarray, classes: np.ndarray, people: np.ndarray | None = None
) -> dict:
    """`accuracy` of the readings of `fer_reading`."""
    read, truth, known = fer_reading(model_file, images_u8, classes)
    return accuracy(read, truth, FER_CLASSES, None if people is None else people[known])


def accuracy(
    predicted: np.ndarray,
    truth: np.ndarray,
    names: tuple[str, ...],
    people: np.ndarray | None = None,
) -> dict:
    """Overall and per-class accuracy of indices into `names`, with `statistics.share`'s width.

    `people` int64 [n] numbers the persons; images of one person may be alike.
    """
    right = predicted == truth
    per_class = {n: float(right[truth == i].mean()) for i, n in enumerate(names)}
    p, half = statistics.share(right, people)
    return {"accuracy": p, "half_width": half, "images": len(right), "per_class": per_class}


def judge_images(
    images: np.ndarray,
    truth: np.ndarray,
    judge: nn.Module,
    fer: Path | None,
    people: np.ndarray | None = None,
) -> dict:
    """Both judges on uint8 images [n, S, S, 3] whose labels are indices into CLASSES."""
    read = classifiers.predict(judge, images).argmax(1)
    report = {"judge": accuracy(read, truth, CLASSES, people)}
    if fer is not None:
        report["fer"] = fer_accuracy(fer, images, truth, people)
    return report


def difference(samples: dict, renders: dict) -> tuple[float, float]:
    """Accuracy of samples minus that of renders, both from `accuracy`, and its half-width."""
    half = np.hypot(samples["half_width"], renders["half_width"])
    return samples["accuracy"] - renders["accuracy"], float(half)
