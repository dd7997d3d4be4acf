"""`load_dataset` beside `keras.utils.image_dataset_from_directory`, on the same images.

Both are read without a shuffle and compared image by image, found by the path of the file: the
order of the records is another one. Stored as PNG, images have to be equal to the last bit.
"""

import os
import re
import warnings
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import convert_folder, encode_image, make_image
from PIL import Image

from converter import ConvertOptions, UsageError
from reader import load_dataset
from reader.plan.read_options import ALLOWED

SIZE = (16, 20)
NAMES = (
    "10/b.png", "10/a 1.png", "10/deep/er/c.png", "10/deep.png",
    "2/a.png", "2/z/b.png", "2/ü.png",
    "cat with hat/1.png", "cat with hat/10.png", "cat with hat/2.png", "cat with hat/B.png",
)  # fmt: skip
ODD_SIZES = ((24, 32), (17, 31), (40, 15), (9, 9), (33, 50), (1, 7))


def write_noise(path: Path, seed: int, size: tuple[int, int], mode: str = "RGB") -> None:
    """Writes an image of which no pixel can be told from its neighbours."""
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, len(mode)), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels, mode).save(path)


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """11 PNG of one size in 3 classes, "10" before "2"."""
    root = tmp_path_factory.mktemp("images")
    for seed, name in enumerate(NAMES):
        write_noise(root / name, seed, SIZE)
    return root


@pytest.fixture(scope="module")
def stored(images, tmp_path_factory):
    """`images` as a data set."""
    out = tmp_path_factory.mktemp("stored") / "set"
    convert_folder(images, out, ConvertOptions(image_size=SIZE, encoding="png", num_shards=3))
    return out


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    """A folder of PNG of different sizes, and the data set in which they have kept them."""
    root = tmp_path_factory.mktemp("odd")
    for seed, size in enumerate(ODD_SIZES):
        write_noise(root / "images" / "ab"[seed % 2] / f"{seed}.png", seed, size)
    options = ConvertOptions(image_size=SIZE, resize="none", encoding="png", num_shards=2)
    convert_folder(root / "images", root / "set", options)
    return root / "images", root / "set"


def read_theirs(folder: Path, **arguments: object) -> tf.data.Dataset:
    arguments = {"image_size": SIZE, "shuffle": False, "verbose": False} | arguments
    return keras.utils.image_dataset_from_directory(folder, **arguments)


def name_elements(
    dataset: tf.data.Dataset, folder: Path | None = None
) -> dict[str, list[np.ndarray]]:
    """The tensors of each image, by the path of its file."""
    if tf.nest.flatten(dataset.element_spec)[0].shape.rank == 4:
        single = dataset.unbatch()
    else:
        single = dataset
    elements = [tf.nest.flatten(element) for element in single.as_numpy_iterator()]
    paths = [os.path.relpath(path, folder) if folder else path for path in dataset.file_paths]
    return dict(zip(paths, elements, strict=True))


def check_equal(ours: dict[str, list[np.ndarray]], theirs: dict[str, list[np.ndarray]]) -> None:
    assert sorted(ours) == sorted(theirs)
    for name, columns in theirs.items():
        for mine, column in zip(ours[name], columns, strict=True):
            np.testing.assert_array_equal(mine, column, strict=True, err_msg=name)


@pytest.mark.parametrize(
    "arguments",
    [
        *(
            {"batch_size": batch_size, **arguments}
            for batch_size in (None, 4)
            for arguments in (
                {"label_mode": "int"},
                {"label_mode": "categorical"},
                {"label_mode": "binary", "class_names": ["10", "cat with hat"]},
                {"label_mode": None},
            )
        ),
        {},
        {"labels": None},
        {"labels": None, "label_mode": "categorical"},
        {"class_names": ["cat with hat", "2", "10"]},
        {"class_names": ["2", "10"], "label_mode": "categorical"},
        {"class_names": ["2"]},
        {"class_names": ("cat with hat", "2")},
        {"labels": [5, 0, 7, 0, 3, 3, 3, 3, 7, 5, 0]},
        {"labels": list(range(11)), "label_mode": "categorical"},
        {"labels": [1, 0] * 5 + [1], "label_mode": "binary"},
        {"labels": [1] * 11, "label_mode": None},
    ],
    ids=str,
)
def test_labels_and_classes_are_those_of_keras(images, stored, arguments):
    theirs = read_theirs(images, **arguments)
    if "labels" in arguments:
        arguments = arguments | {"order": "path"}
    ours = load_dataset(stored, shuffle=False, **arguments)
    assert ours.element_spec == theirs.element_spec
    assert len(ours) == len(theirs)
    if theirs.class_names is not None:  # without labels, Keras has no classes
        assert ours.class_names == [*theirs.class_names]
    check_equal(name_elements(ours), name_elements(theirs, images))


def test_classes_are_sorted_as_text(stored):
    assert load_dataset(stored).class_names == ["10", "2", "cat with hat"]


def test_labels_may_be_an_array(stored):
    listed = load_dataset(stored, labels=list(range(11)), shuffle=False, order="path")
    array = load_dataset(stored, labels=np.arange(11), shuffle=False, order="path")
    check_equal(name_elements(array), name_elements(listed))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"labels": [1, 2], "order": "path"},
            "labels has 2 entries for 11 records: give one for each, in the order of the "
            "originals' paths",
        ),
        ({"labels": "given"}, "labels 'given' is unknown: 'inferred', a list of numbers, or None"),
        (
            {"labels": [0] * 11, "class_names": ["10"]},
            "class_names names the stored labels, which `labels` replaces",
        ),
        (
            {"class_names": ["10", "dog"]},
            "class_names: 'dog' is none of the classes: there are 10, 2, cat with hat",
        ),
        (
            {"class_names": ["10", "10"]},
            "class_names: a class is named twice: there are 10, 2, cat with hat",
        ),
        (
            {"class_names": []},
            "class_names: no class is named: there are 10, 2, cat with hat",
        ),
        (
            {"labels": [0] * 11, "label_mode": "binary", "order": "path"},
            "label_mode 'binary' takes 2 classes, this data set has 1: use 'int' or 'categorical'",
        ),
        ({"verbose": False}, "argument 'verbose' is unknown: there are batch_size, label_mode, "),
    ],
)
def test_labels_that_do_not_fit_are_refused(stored, arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}"):
        load_dataset(stored, **arguments)


@pytest.mark.parametrize(
    ("batch_size", "data_format"),
    [(None, "channels_first"), (4, "channels_first"), (4, "channels_last")],
)
@pytest.mark.parametrize("color_mode", ["grayscale", "rgb", "rgba"])
def test_colours_and_axes_are_those_of_keras(images, stored, color_mode, data_format, batch_size):
    arguments = {"color_mode": color_mode, "data_format": data_format, "batch_size": batch_size}
    theirs = read_theirs(images, **arguments)
    ours = load_dataset(stored, shuffle=False, **arguments)
    assert ours.element_spec == theirs.element_spec
    expected = name_elements(theirs, images)
    check_equal(name_elements(ours), expected)
    small = load_dataset(stored, shuffle=False, dtype="uint8", **arguments)
    rounded = {name: [image.astype(np.uint8), label] for name, (image, label) in expected.items()}
    check_equal(name_elements(small), rounded)


def test_what_shines_through_lies_on_white_here_and_on_nothing_in_keras(tmp_path):
    write_noise(tmp_path / "images" / "a" / "0.png", 0, SIZE, "RGBA")
    convert_folder(tmp_path / "images", tmp_path / "set", ConvertOptions(image_size=SIZE))
    (ours,) = load_dataset(
        tmp_path / "set", color_mode="rgba", label_mode=None, batch_size=None
    ).as_numpy_iterator()
    (theirs,) = read_theirs(
        tmp_path / "images", color_mode="rgba", label_mode=None, batch_size=None
    ).as_numpy_iterator()
    assert (ours[..., 3] == 255).all()
    assert theirs[..., 3].min() < 5


@pytest.mark.parametrize("fit", ["stretch", "crop_to_aspect_ratio", "pad_to_aspect_ratio"])
@pytest.mark.parametrize(
    ("interpolation", "image_size"),
    [
        *((name, (21, 13)) for name in ALLOWED["interpolation"]),
        ("bilinear", 18),
        ("bicubic", [16, 20]),
    ],
    ids=str,
)
def test_resized_images_are_those_of_keras(odd, interpolation, fit, image_size):
    images, stored = odd
    arguments = {"image_size": image_size, "interpolation": interpolation, "batch_size": 4}
    if fit != "stretch":
        arguments[fit] = True
    ours = load_dataset(stored, shuffle=False, **arguments)
    if fit == "crop_to_aspect_ratio" and interpolation in ("gaussian", "mitchellcubic"):
        with pytest.raises(ValueError, match="argument `interpolation`"):
            read_theirs(images, **arguments)
        assert len(name_elements(ours)) == len(ODD_SIZES)
        return
    theirs = name_elements(read_theirs(images, **arguments), images)
    if interpolation == "nearest":  # uint8 from Keras, which a model then has to cast
        theirs = {
            name: [image.astype(np.float32), label] for name, (image, label) in theirs.items()
        }
    check_equal(name_elements(ours), theirs)


@pytest.mark.parametrize("color_mode", ["grayscale", "rgba"])
@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("fit", ["crop_to_aspect_ratio", "pad_to_aspect_ratio"])
def test_resized_images_of_other_colours_are_those_of_keras(odd, fit, data_format, color_mode):
    images, stored = odd
    arguments = {"color_mode": color_mode, "data_format": data_format, "image_size": (30, 12)}
    arguments |= {fit: True, "batch_size": None}
    theirs = read_theirs(images, **arguments)
    ours = load_dataset(stored, shuffle=False, **arguments)
    assert ours.element_spec == theirs.element_spec
    check_equal(name_elements(ours), name_elements(theirs, images))


def test_to_resize_when_converting_is_not_to_resize_when_reading(odd, tmp_path):
    images, _ = odd
    convert_folder(images, tmp_path / "set", ConvertOptions(image_size=SIZE, encoding="png"))
    ours = name_elements(load_dataset(tmp_path / "set", shuffle=False))
    theirs = name_elements(read_theirs(images), images)
    assert sorted(ours) == sorted(theirs)
    # A conversion smooths what it makes smaller, so that nothing flickers; Keras does not.
    assert any(np.abs(ours[name][0] - theirs[name][0]).max() > 20 for name in ours)


@pytest.mark.parametrize(("color_mode", "tolerance"), [("rgb", 16), ("grayscale", 6)])
def test_images_of_jpeg_are_those_of_keras_up_to_its_faster_decoder(
    tmp_path, color_mode, tolerance
):
    for seed in range(6):
        path = tmp_path / "images" / "ab"[seed % 2] / f"{seed}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encode_image(make_image(seed, *SIZE), "JPEG", quality=95))
    options = ConvertOptions(image_size=SIZE, encoding="keep", num_shards=2)
    convert_folder(tmp_path / "images", tmp_path / "set", options)
    ours = name_elements(load_dataset(tmp_path / "set", shuffle=False, color_mode=color_mode))
    theirs = name_elements(
        read_theirs(tmp_path / "images", color_mode=color_mode), tmp_path / "images"
    )
    assert sorted(ours) == sorted(theirs)
    for name, (image, label) in theirs.items():
        # Keras decodes with an inverse DCT that is faster and less exact than Pillow's, and ours.
        assert np.abs(ours[name][0] - image).max() <= tolerance
        assert ours[name][1] == label


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 0.9])
def test_a_validation_split_has_the_sizes_of_keras_and_divides_all_images(images, stored, share):
    arguments = {"validation_split": share, "seed": 7, "batch_size": 4}
    parts = {}
    for subset in ("training", "validation"):
        theirs = read_theirs(images, subset=subset, **arguments)
        ours = load_dataset(stored, subset=subset, **arguments)
        assert len(ours) == len(theirs)
        assert len(ours.file_paths) == len(theirs.file_paths)
        assert ours.element_spec == theirs.element_spec
        assert ours.class_names == theirs.class_names
        parts[subset] = list(ours.file_paths)
    assert sorted(parts["training"] + parts["validation"]) == sorted(NAMES)


def test_both_subsets_come_as_from_keras(images, stored):
    arguments = {"validation_split": 0.3, "seed": 7, "batch_size": 4}
    training, validation = load_dataset(stored, subset="both", **arguments)
    theirs = read_theirs(images, subset="both", **arguments)
    assert [len(part) for part in (training, validation)] == [len(part) for part in theirs]
    assert training.file_paths == load_dataset(stored, subset="training", **arguments).file_paths
    original = name_elements(read_theirs(images), images)
    check_equal(name_elements(validation), {name: original[name] for name in validation.file_paths})
    seen = [
        image.tobytes()
        for part in (training, validation)
        for image, _ in part.unbatch().as_numpy_iterator()
    ]
    assert sorted(seen) == sorted(image.tobytes() for image, _ in original.values())


@pytest.mark.parametrize("shuffle", [True, "exact", "buffer"])
def test_of_both_subsets_training_alone_is_shuffled(stored, shuffle):
    training, validation = load_dataset(
        stored, subset="both", validation_split=0.4, seed=1, batch_size=4, shuffle=shuffle
    )

    def read(dataset):
        return [image.tobytes() for image, _ in dataset.unbatch().as_numpy_iterator()]

    assert read(validation) == read(validation)
    first, second = read(training), read(training)
    assert first != second
    assert sorted(first) == sorted(second)


def test_a_validation_split_depends_on_the_seed_alone(stored):
    def draw(seed, **arguments):
        return set(
            load_dataset(
                stored, subset="validation", validation_split=0.4, seed=seed, **arguments
            ).file_paths
        )

    assert draw(1) == draw(1, batch_size=None, shuffle=False, color_mode="rgba", dtype="uint8")
    assert len({frozenset(draw(seed)) for seed in range(6)}) > 3


@pytest.mark.parametrize("class_names", [["2", "10"], ["cat with hat"]])
def test_a_validation_split_of_some_classes_divides_those(stored, class_names):
    arguments = {"validation_split": 0.5, "seed": 3, "class_names": class_names}
    paths = [
        path
        for part in load_dataset(stored, subset="both", **arguments)
        for path in part.file_paths
    ]
    assert sorted(paths) == sorted(name for name in NAMES if name.split("/")[0] in class_names)


def test_subsets_are_the_splits_of_a_data_set_that_has_them(converted):
    arguments = {"shuffle": False, "batch_size": 8}
    both = load_dataset(converted, subset="both", **arguments)
    for part, subset, split in zip(
        both, ("training", "validation"), ("train", "validation"), strict=True
    ):
        expected = name_elements(load_dataset(converted, split, **arguments))
        check_equal(name_elements(part), expected)
        check_equal(name_elements(load_dataset(converted, subset=subset, **arguments)), expected)
    assert len(set(both[0].file_paths) | set(both[1].file_paths)) == 72


@pytest.mark.parametrize(
    ("split", "arguments", "message"),
    [
        (
            "stored",
            {"subset": "both"},
            "subset 'training': this data set has no split 'validation': give a validation_split "
            "and a seed to draw one",
        ),
        (
            "converted",
            {"subset": "both", "validation_split": 0.2, "seed": 1},
            "this data set was converted with splits, train, validation: read those instead of "
            "drawing a validation_split",
        ),
        (
            "stored",
            {"subset": "training", "validation_split": 0.2},
            "validation_split draws records with the seed: give the same one for training and for "
            "validation, or they overlap",
        ),
        (
            "stored",
            {"validation_split": 0.2, "seed": 1},
            "validation_split and subset go together: give both, or neither",
        ),
    ],
)
def test_subsets_that_cannot_be_are_refused(request, split, arguments, message):
    with pytest.raises(UsageError, match=f"^{re.escape(message)}$"):
        load_dataset(request.getfixturevalue(split), **arguments)


def test_shuffled_images_keep_their_labels(images, stored):
    expected = {
        image.tobytes(): label
        for image, label in name_elements(read_theirs(images), images).values()
    }
    dataset = load_dataset(stored, batch_size=4, seed=1)
    for _ in range(2):
        found = [(image.tobytes(), label) for image, label in dataset.unbatch().as_numpy_iterator()]
        assert dict(found) == expected


@pytest.mark.parametrize("serializable", [False, True])
def test_keras_does_not_warn_of_a_data_set_that_is_shuffled(stored, serializable):
    model = keras.Sequential([keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3)])
    model.compile("sgd", "sparse_categorical_crossentropy")
    train = load_dataset(stored, "train", batch_size=4, seed=7, serializable=serializable)
    with warnings.catch_warnings(record=True) as caught:
        model.fit(train, verbose=0)
    assert [str(warning.message) for warning in caught] == []


def test_warnings_of_a_data_set_that_is_not_shuffled_stay(stored):
    with warnings.catch_warnings():
        warnings.resetwarnings()
        load_dataset(stored, "train", shuffle=False)
        assert warnings.filters == []
