"""Preprocessing for a model: bit for bit what converting and reading gives, for every option."""

import io
import itertools
import json
import os
import shutil
import stat
import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import convert_folder, encode_image, make_environment, make_image, make_profile
from making import make_images
from PIL import Image
from servers import upload_tree

from converter.errors import DatasetError, ImageError, ShardmillError, UsageError
from converter.names import name_frame
from converter.options import ConvertOptions
from reader import Preprocessing, load_dataset, load_preprocessing, open_shards

SLOW = ("wide.jpeg", "tall.png", "line.", "ten thousand", "claims", "bomb", "scans")
"""Images that take long to make at other sizes: only some of the options are tried on them."""

SETS = {
    "default": {},
    "nearest": {"interpolation": "nearest", "encoding": "raw", "image_size": (64, 48)},
    "box": {"interpolation": "box", "encoding": "png", "image_size": 40},
    "hamming": {"interpolation": "hamming", "encoding": "webp", "quality": 40, "image_size": 61},
    "bicubic": {"interpolation": "bicubic", "quality": 30, "image_size": (33, 90)},
    "lanczos": {"interpolation": "lanczos", "encoding": "raw", "image_size": 128},
    "crop": {"resize": "crop", "image_size": (50, 90)},
    "pad": {"resize": "pad", "encoding": "png", "image_size": (90, 50)},
    "shorter": {"resize": "shorter", "image_size": 50, "encoding": "jpeg"},
    "longer": {"resize": "longer", "image_size": 50, "encoding": "raw"},
    "none": {"resize": "none", "encoding": "jpeg", "quality": 100},
    "keep": {"resize": "none", "encoding": "keep"},
    "keep the size": {"image_size": (24, 32), "encoding": "keep"},
    "own size": {"image_size": (24, 32)},
    "gray jpeg": {"color_mode": "grayscale", "image_size": 40},
    "gray raw": {"color_mode": "grayscale", "encoding": "raw", "resize": "pad", "image_size": 40},
    "gray keep": {"color_mode": "grayscale", "encoding": "keep", "resize": "none"},
    "alpha png": {"color_mode": "rgba", "encoding": "png", "resize": "crop", "image_size": 40},
    "alpha raw": {"color_mode": "rgba", "encoding": "raw", "resize": "none"},
    "alpha keep": {"color_mode": "rgba", "encoding": "keep", "image_size": 40},
    "background": {"background": (0, 128, 255), "encoding": "png", "image_size": 40},
    "no profiles": {"color_profiles": "ignore", "encoding": "png", "image_size": 40},
    "as small": {"resize": "pad", "enlarge": False, "encoding": "png", "image_size": 100},
    "two filters": {"interpolation": "box", "enlarge_interpolation": "nearest", "image_size": 100},
    "no animations": {"frames": "reject", "image_size": 40},
    "frames": {"frames": "all", "encoding": "png", "image_size": 40},
    "filled": {"truncated": "fill", "min_decoded": 0.2, "image_size": 40},
    "formats": {"formats": ("jpeg", "tiff", "ppm", "jpeg2000"), "image_size": 40},
    "limits": {
        "min_side": 2, "max_aspect": 4.0, "max_pixels": 300_000, "max_file_bytes": 20_000,
        "image_size": 40,
    },
    "area": {"min_area": 600, "resize": "none", "encoding": "png"},
}  # fmt: skip


def make_more():
    """Images that are large enough for libjpeg to decode a fraction of them, and other traits."""
    large = make_image(5, 420, 610)
    exif = Image.Exif()
    exif[0x0112] = 6
    yield "large.jpeg", encode_image(large, "JPEG", quality=80)
    yield "large turned.jpeg", encode_image(large, "JPEG", exif=exif)
    yield "large profile.jpeg", encode_image(large, "JPEG", icc_profile=make_profile())
    yield "large progressive.jpeg", encode_image(large, "JPEG", progressive=True)
    yield "large gray.jpeg", encode_image(large.convert("L"), "JPEG")
    yield "large cmyk.jpeg", encode_image(large.convert("CMYK"), "JPEG")
    yield "large cut.jpeg", encode_image(large, "JPEG")[:-9_000]
    yield "large turned.mpo", encode_image(large, "MPO", exif=exif)
    yield "large alpha.png", encode_image(make_image(6, 300, 200, "RGBA"), "PNG")
    yield "large palette.png", encode_image(large.quantize(60), "PNG", transparency=4)
    yield "large turned.png", encode_image(large, "PNG", exif=exif)
    yield "large turned.tiff", encode_image(large, "TIFF", exif=exif)
    yield "large.webp", encode_image(large, "WEBP")
    yield "large.bmp", encode_image(large, "BMP")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Every odd and every hostile image, and larger ones."""
    root = tmp_path_factory.mktemp("odd")
    (root / "class").mkdir()
    for name, data in (*make_images(), *make_more()):
        if not name.startswith(SLOW):
            (root / "class" / name).write_bytes(data)
    return root


@pytest.fixture(scope="module")
def make_set(folder, tmp_path_factory):
    """Gives the data set of some options, made when it is first asked for."""
    root = tmp_path_factory.mktemp("sets")

    def make(name: str) -> Path:
        if not (root / name).exists():
            convert_folder(folder, root / name, ConvertOptions(num_shards=1, **SETS[name]))
        return root / name

    return make


def read_all(out: Path, **options: object) -> dict[str, np.ndarray]:
    """The images of a data set by the paths of their originals, as `load_dataset` gives them."""
    options = {"dtype": "uint8", "batch_size": None, "shuffle": False, **options}
    dataset = load_dataset(out, label_mode=None, with_filename=True, **options)
    return {name.decode(): image for image, name in dataset.as_numpy_iterator()}


@pytest.mark.parametrize("name", SETS)
def test_every_file_gives_the_pixels_or_the_refusal_of_the_data_set(folder, make_set, name):
    out = make_set(name)
    stored, preprocessing = read_all(out), open_shards(out).preprocessing()
    lines = map(json.loads, (out / "rejects.jsonl").read_text().splitlines())
    refused = {line["path"]: line["code"] for line in lines}
    done = {"written": 0, "rejected": 0}
    for path in sorted(folder.rglob("*.*")):
        own = str(path.relative_to(folder))
        first = own if own in stored else name_frame(own, 0)
        if first in stored:
            found = preprocessing.preprocess(path)
            assert found.dtype == np.uint8
            np.testing.assert_array_equal(found, stored[first], err_msg=own)
            np.testing.assert_array_equal(preprocessing.preprocess(path.read_bytes()), found)
            done["written"] += 1
        elif (code := refused.get(own, refused.get(first, ""))) and code[:4] != "skip":
            with pytest.raises(ImageError, match=f"^{code}: "):
                preprocessing.preprocess(path)
            done["rejected"] += 1
    assert done["written"] > 20
    assert done["rejected"] > 10


READ = [
    {"dtype": "float32"},
    {"data_format": "channels_first"},
    {"color_mode": "grayscale"},
    {"color_mode": "rgba", "data_format": "channels_first", "dtype": "float32"},
    {"image_size": (20, 31)},
    {"image_size": (20, 31), "interpolation": "lanczos3", "dtype": "float32"},
    {"image_size": (20, 31), "crop_to_aspect_ratio": True, "color_mode": "grayscale"},
    {"image_size": (70, 31), "pad_to_aspect_ratio": True, "data_format": "channels_first"},
]


@pytest.mark.parametrize("options", READ)
@pytest.mark.parametrize("name", ["crop", "pad", "shorter", "alpha raw", "gray raw", "keep"])
def test_options_of_reading_give_what_load_dataset_gives(folder, make_set, name, options):
    out = make_set(name)
    preprocessing = open_shards(out).preprocessing(**options)
    for path, expected in itertools.islice(read_all(out, **options).items(), 12):
        found = preprocessing.preprocess(folder / path)
        assert found.dtype == options.get("dtype", "uint8")
        np.testing.assert_array_equal(found, expected, err_msg=path)


def test_batches_of_reading_are_batches_of_preprocessing(folder, make_set):
    """`load_dataset` resizes whole batches at once."""
    options = {"image_size": (20, 31), "dtype": "float32"}
    out = make_set("crop")
    dataset = load_dataset(
        out, label_mode=None, batch_size=16, shuffle=False, with_filename=True, **options
    )
    images, names = next(iter(dataset))
    paths = [folder / name.decode() for name in names.numpy()]
    np.testing.assert_array_equal(open_shards(out).preprocess(paths, **options), images.numpy())


def test_a_list_gives_a_batch(folder, make_set):
    shards = open_shards(make_set("pad"))
    paths = [folder / path for path in list(read_all(shards.folder))[:9]]
    batch = shards.preprocess([paths[0], str(paths[1]), paths[2].read_bytes(), *paths[3:]])
    assert batch.shape == (9, 90, 50, 3)
    for row, path in zip(batch, paths, strict=True):
        np.testing.assert_array_equal(row, shards.preprocess(path))
    assert shards.preprocess([], dtype="float32").shape == (0, 90, 50, 3)


def test_a_list_of_different_sizes_is_refused(folder, make_set):
    shards = open_shards(make_set("longer"))
    images = [make_image(1, 30, 40), make_image(1, 40, 30)]
    with pytest.raises(UsageError, match="one by one"):
        shards.preprocess(images)
    with pytest.raises(UsageError, match="have none"):
        shards.preprocess([])
    assert shards.preprocess(images[:1]).shape == (1, 38, 50, 3)
    assert shards.preprocess(images, image_size=(8, 9)).shape == (2, 8, 9, 3)


def test_an_error_in_a_list_names_its_image(folder, make_set):
    shards = open_shards(make_set("pad"))
    missing = folder / "class" / "nothing.jpeg"
    with pytest.raises(ImageError, match=r"nothing\.jpeg"):
        shards.preprocess([make_image(1), missing])
    with pytest.raises(ImageError, match=r"image 1 of 2"):
        shards.preprocess([make_image(1), b"no image"])


MODES = ("RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "YCbCr", "RGBa", "I;16")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["crop", "gray raw", "alpha png", "formats"])
def test_a_picture_counts_as_a_file_without_loss(make_set, mode, name):
    shards = open_shards(make_set(name))
    picture = make_image(3, 60, 44, mode if mode in ("RGBA", "LA", "CMYK") else "RGB")
    if mode == "I;16":
        picture = Image.fromarray(np.arange(60 * 44, dtype=np.uint16).reshape(60, 44) * 20)
    picture = picture if picture.mode == mode else picture.convert(mode)
    kind = "TIFF" if mode == "CMYK" else "PNG"
    everything = ConvertOptions(**SETS[name] | {"formats": ("png", "tiff")})
    alike = {"YCbCr": "RGB", "RGBa": "RGBA"}.get(mode, mode)
    expected = preprocess_by(everything, encode_image(picture.convert(alike), kind))
    np.testing.assert_array_equal(shards.preprocess(picture), expected)


def preprocess_by(options: ConvertOptions, data: bytes) -> np.ndarray:
    """The pixels of a file by these options, decoded by Pillow."""
    from converter.images.conversion import convert_image

    image = convert_image(data, options)
    if image.format == "raw":
        pixels = np.frombuffer(image.data, np.uint8).reshape(image.height, image.width, -1)
    else:
        pixels = np.asarray(Image.open(io.BytesIO(image.data)))
    pixels = pixels.reshape(image.height, image.width, -1)
    return pixels[..., :3] if pixels.shape[2] > 1 else np.repeat(pixels, 3, axis=2)


def test_a_picture_keeps_its_turn_and_its_profile(make_set):
    exif = Image.Exif()
    exif[0x0112] = 8
    shards = open_shards(make_set("none"))
    data = encode_image(make_image(3), "PNG", exif=exif, icc_profile=make_profile())
    with Image.open(io.BytesIO(data)) as picture:
        np.testing.assert_array_equal(shards.preprocess(picture), shards.preprocess(data))
    assert shards.preprocess(data).shape == (32, 24, 3)


@pytest.mark.parametrize("shape", [(30, 20, 3), (30, 20, 1), (30, 20), (30, 20, 4), (1, 1, 3)])
@pytest.mark.parametrize("name", ["crop", "formats"])
def test_an_array_counts_as_a_file_without_loss(make_set, shape, name):
    pixels = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    shards = open_shards(make_set(name))
    picture = Image.fromarray(pixels[..., 0] if shape[2:] == (1,) else pixels)
    expected = shards.preprocess(picture)
    np.testing.assert_array_equal(shards.preprocess(pixels), expected)
    np.testing.assert_array_equal(shards.preprocess(pixels[::-1][::-1]), expected)
    if pixels.ndim == 3:
        np.testing.assert_array_equal(shards.preprocess(pixels[None]), expected[None])


@pytest.mark.parametrize(
    ("image", "said"),
    [
        (7, "7 is no image"),
        (None, "None is no image"),
        (np.zeros((4, 4, 3), np.float32), "array of float32"),
        (np.zeros((4, 4, 2), np.uint8), r"uint8 \(4, 4, 2\)"),
        (np.zeros((0, 4, 3), np.uint8), r"uint8 \(0, 4, 3\)"),
        ([np.zeros((4, 4, 3), np.float64)], "array of float64"),
        ([[7]], r"\[7\] is no image"),
    ],
)
def test_what_is_no_image_is_refused(make_set, image, said):
    with pytest.raises(UsageError, match=said):
        open_shards(make_set("crop")).preprocess(image)


def test_a_path_without_a_readable_file_is_an_error(make_set, tmp_path):
    preprocessing = open_shards(make_set("limits")).preprocessing()
    (tmp_path / "large.jpeg").write_bytes(bytes(30_000))
    (tmp_path / "empty.jpeg").write_bytes(b"")
    for path, said in {
        tmp_path / "none.jpeg": "^missing: there is no",
        tmp_path: "^missing: there is a folder",
        "bad\0name": "^unreadable: |^missing: ",
        tmp_path / "large.jpeg": "^too_many_bytes: 30,000",
        tmp_path / "empty.jpeg": "^empty: ",
    }.items():
        with pytest.raises(ImageError, match=said) as caught:
            preprocessing.preprocess(path)
        assert "\n" not in str(caught.value)


def test_an_address_is_read_like_a_file(server, folder, make_set, tmp_path):
    shutil.copy(folder / "class" / "large.jpeg", tmp_path / "1.jpeg")
    address = upload_tree(tmp_path, server.path("preprocessing"))
    preprocessing = open_shards(make_set("crop")).preprocessing()
    expected = preprocessing.preprocess(tmp_path / "1.jpeg")
    np.testing.assert_array_equal(preprocessing.preprocess(str(address / "1.jpeg")), expected)
    with pytest.raises(ImageError, match=r"^missing: "):
        preprocessing.preprocess(str(address / "2.jpeg"))
    with pytest.raises(UsageError, match="unknown kind"):
        preprocessing.preprocess("http://example.com/1.jpeg")


def test_it_is_saved_and_loaded(folder, make_set, tmp_path):
    shards = open_shards(make_set("two filters"))
    saved = shards.preprocessing(dtype="float32", data_format="channels_first")
    saved.save(tmp_path / "preprocessing.json")
    loaded = load_preprocessing(str(tmp_path / "preprocessing.json"))
    assert loaded == saved
    assert isinstance(loaded, Preprocessing)
    assert loaded.class_names == ("class",)
    assert repr(loaded) == "Preprocessing(100x100, float32, 1 class)"
    image = folder / "class" / "large.jpeg"
    np.testing.assert_array_equal(loaded.preprocess(image), saved.preprocess(image))
    assert (tmp_path / "preprocessing.json").stat().st_size < 4_000
    loaded.save(tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "preprocessing.json").read_bytes()


def test_only_a_file_is_written_over(make_set, tmp_path):
    preprocessing = open_shards(make_set("crop")).preprocessing()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for place, said in (
        (tmp_path, "is a folder"), (pipe, "a device or a pipe"), (tmp_path / "a" / "b", "no folder")
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            preprocessing.save(place)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    link = tmp_path / "link.json"
    link.symlink_to("p.json")
    preprocessing.save(link)
    assert link.is_symlink()
    assert load_preprocessing(tmp_path / "p.json") == preprocessing


def test_options_that_a_file_leaves_out_have_their_defaults(make_set, tmp_path):
    path = tmp_path / "p.json"
    open_shards(make_set("crop")).preprocessing().save(path)
    content = json.loads(path.read_text())
    content["steps"][0]["options"] = {}
    path.write_text(json.dumps(content))
    assert repr(load_preprocessing(path)).startswith("Preprocessing(256x256, uint8")


def test_serving_needs_neither_shards_nor_tensorflow(folder, make_set, tmp_path):
    shards = open_shards(make_set("default"))
    shards.preprocessing().save(tmp_path / "p.json")
    image = folder / "class" / "large turned.jpeg"
    script = (
        "import sys, reader, numpy as np\n"
        "found = reader.load_preprocessing(sys.argv[1]).preprocess(sys.argv[2])\n"
        "np.save(sys.argv[3], found)\n"
        "heavy = {'tensorflow', 'keras', 'apache_beam'} & {*sys.modules}\n"
        "assert not heavy, heavy"
    )
    out = tmp_path / "found.npy"
    command = [sys.executable, "-c", script, str(tmp_path / "p.json"), str(image), str(out)]
    subprocess.run(command, check=True, env=make_environment())
    np.testing.assert_array_equal(np.load(out), shards.preprocess(image))


def damage(path: Path, **changes: object) -> Path:
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, **changes}))
    return path


def test_a_saved_file_that_is_none_or_damaged_is_an_error(make_set, tmp_path):
    path = tmp_path / "p.json"
    with pytest.raises(DatasetError, match="is no file"):
        load_preprocessing(path)
    with pytest.raises(DatasetError, match="is no file"):
        load_preprocessing(tmp_path)
    preprocessing = open_shards(make_set("crop")).preprocessing()
    (step,) = json.loads(json.dumps([{"generator": "x", "options": {}}]))
    cases = {
        "is not version 1": {"version": 2},
        "is not version": {"format": None},
        "no steps": {"steps": []},
        "unknown option": {"steps": [{**step, "options": {"colour": 1}}]},
        "out of range": {"steps": [{**step, "options": {"quality": 101}}]},
        "is not a text|is unknown": {"steps": [{**step, "options": {"resize": 5}}]},
        "argument 'seed'": {"read": {"seed": 1}},
        "dtype": {"read": {"dtype": "int8"}},
        "is not a list": {"class_names": "ab"},
        "not a count": {"image": {"height": -1}},
    }
    for said, changes in cases.items():
        preprocessing.save(path)
        damage(path, **changes)
        with pytest.raises(DatasetError, match=said):
            load_preprocessing(path)
    for data in (b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"version": NaN}', b"{}"):
        path.write_bytes(data)
        with pytest.raises(DatasetError, match="damaged"):
            load_preprocessing(path)
    with path.open("wb") as file:
        file.truncate(17 << 20)
    with pytest.raises(DatasetError, match="at most"):
        load_preprocessing(path)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"batch_size": 3}, "argument 'batch_size' is unknown"),
        ({"random_flip": True}, "argument 'random_flip' is unknown"),
        ({"dtype": "float16"}, "dtype 'float16'"),
        ({"image_size": (0, 1)}, "image_size"),
        ({"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}, "exclude each other"),
    ],
)
def test_options_that_are_random_or_make_no_sense_are_refused(make_set, options, said):
    with pytest.raises(UsageError, match=said):
        open_shards(make_set("crop")).preprocessing(**options)


CHAINS = {
    "same": ({"encoding": "jpeg", "image_size": 50}, {"image_size": 50, "num_shards": 3}),
    "smaller": ({"image_size": 90, "resize": "crop"}, {"image_size": 40, "encoding": "png"}),
    "raw": ({"encoding": "raw", "image_size": 60}, {"encoding": "jpeg", "image_size": (30, 44)}),
    "from raw": ({"encoding": "raw", "resize": "none"}, {"encoding": "keep", "resize": "none"}),
    "kept": ({"encoding": "keep", "resize": "none"}, {"encoding": "keep", "resize": "none"}),
    "not kept": (
        {"encoding": "keep", "resize": "none", "color_profiles": "ignore"},
        {"encoding": "png", "resize": "pad", "image_size": 64},
    ),
    "gray": ({"color_mode": "rgba", "encoding": "png"}, {"color_mode": "grayscale"}),
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_data_set_made_from_another_needs_that_one(folder, tmp_path, name):
    first, then = (ConvertOptions(**options) for options in CHAINS[name])
    convert_folder(folder, tmp_path / "old", first)
    convert_folder(tmp_path / "old", tmp_path / "new", then)
    old, new = open_shards(tmp_path / "old"), open_shards(tmp_path / "new")
    with pytest.raises(UsageError, match="made_from"):
        new.preprocessing()
    stored = read_all(tmp_path / "new")
    preprocessing = new.preprocessing(made_from=old)
    assert new.preprocessing(made_from=tmp_path / "old") == preprocessing
    assert len(stored) > 60
    for path, expected in stored.items():
        found = preprocessing.preprocess(folder / path)
        np.testing.assert_array_equal(found, expected, err_msg=path)
    preprocessing.save(tmp_path / "p.json")
    assert load_preprocessing(tmp_path / "p.json") == preprocessing
    with pytest.raises(UsageError, match="not made from"):
        old.preprocessing(made_from=old)


def test_a_chain_of_three_is_a_list(folder, tmp_path):
    images = folder
    for name, size in (("a", 90), ("b", 70), ("c", 50)):
        convert_folder(images, tmp_path / name, ConvertOptions(image_size=size))
        images = tmp_path / name
    shards = open_shards(tmp_path / "c")
    found = shards.preprocessing(made_from=[tmp_path / "a", tmp_path / "b"])
    stored = read_all(tmp_path / "c")
    path = "class/large turned.jpeg"
    np.testing.assert_array_equal(found.preprocess(folder / path), stored[path])
    with pytest.raises(UsageError, match="made_from"):
        shards.preprocessing(made_from=tmp_path / "b")


def test_a_data_set_of_several_inputs_with_another_among_them_is_refused(make_set):
    shards = open_shards(make_set("crop"))
    members = ["folders:photos", "shardmill:old"]
    shards.manifest.options["members"] = members
    with pytest.raises(UsageError, match="another way"):
        shards.preprocessing()
    shards.manifest.options["members"] = members[:1]
    assert shards.preprocessing().steps


def test_another_version_is_said_once(folder, make_set, monkeypatch):
    monkeypatch.setattr("converter.images.conversion.name_generator", lambda: "Pillow 99")
    monkeypatch.setattr("reader.inference.preprocessing._warned", set())
    shards, image = open_shards(make_set("crop")), folder / "class" / "large.jpeg"
    with pytest.warns(UserWarning, match="here is Pillow 99") as caught:
        shards.preprocess(image)
    assert str(caught[0].message).startswith("the data set was converted with shardmill ")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        shards.preprocess(image)


def test_options_of_a_newer_version_are_refused_in_one_line(make_set):
    shards = open_shards(make_set("crop"))
    content = shards.preprocessing()
    content.steps[0].options["fog"] = 1
    with pytest.raises(ShardmillError, match="of another version"):
        content.preprocess(make_image(1))


@pytest.mark.parametrize("name", ["photos", "digits"])
def test_real_images_give_what_was_stored(shared_images, tmp_path, name):
    out = tmp_path / "set"
    convert_folder(shared_images / name, out, ConvertOptions())
    preprocessing, stored = open_shards(out).preprocessing(), read_all(out)
    assert len(stored) > 190
    paths = list(stored)
    for begin in range(0, len(paths), 64):
        part = paths[begin : begin + 64]
        batch = preprocessing.preprocess([shared_images / name / path for path in part])
        np.testing.assert_array_equal(batch, np.stack([stored[path] for path in part]))
