"""Says what limits reading on this machine, and what to do about it."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from converter.sizes import format_bytes, format_count
from converter.usage import measure_free_memory
from reader.bench.rounds import Bench, Figures

BUSY: Final = 0.8  # of all cores, from which on there is nothing left to win but cores
DECODING: Final = 0.5  # of the CPU time, from which on it is the decoder that takes it
WORTH_SAYING: Final = 1.15


class Verdict(NamedTuple):
    """What limits reading.

    Attributes:
        limit: `others`, `memory`, `disk`, `network`, `decoder`, `cpu` or `python`.
        sentences: why, and what to do about it.
    """

    limit: str
    sentences: list[str]


def judge(bench: Bench, free_bytes: int | None = None) -> Verdict:
    """What limits reading; `free_bytes` of memory can cache files, by default what is free now."""
    free_bytes = measure_free_memory() if free_bytes is None else free_bytes
    limit = find_limit(bench, free_bytes)
    return Verdict(limit, [*_EXPLANATIONS[limit](bench), *_add_advice(bench, limit)])


def find_limit(bench: Bench, free_bytes: int | None) -> str:
    """The first that applies."""
    ours, source = choose_ours(bench), bench.figures["bytes"]
    if find_available(bench) < BUSY * bench.cores:
        return "others"
    if ours.images_per_s > source.images_per_s / WORTH_SAYING and not fits(bench, free_bytes):
        return "network" if bench.shards.folder.is_remote else "disk"
    threads = bench.buffers.calls * bench.buffers.threads
    if threads < bench.cores and not bench.shards.manifest.image.is_raw:
        return "memory"
    if ours.cores < BUSY * find_available(bench):
        return "python"
    return "decoder" if measure_decoding(bench) >= DECODING else "cpu"


def choose_ours(bench: Bench) -> Figures:
    """What a user trains with: `load_dataset`, or without TensorFlow `batches`."""
    figures = bench.figures
    return figures["batches"] if figures["load_dataset"].absent else figures["load_dataset"]


def measure_decoding(bench: Bench) -> float:
    """The share of the CPU time of an image that TensorFlow's bare decoder needs for it."""
    decoder = bench.figures["decoder"]
    if decoder.absent is None:
        return decoder.cpu_ms_per_image / choose_ours(bench).cpu_ms_per_image
    return 0.0 if bench.shards.manifest.image.is_raw else 1.0


def find_available(bench: Bench) -> float:
    """How many cores other programs, or a limit of this container, leave to this one."""
    # From memory, and with a thread a core, the decoder takes all that it can get.
    decoder = bench.figures["decoder"]
    if decoder.absent is None:
        return min(decoder.cores, bench.cores)
    return float(bench.cores)


def fits(bench: Bench, free_bytes: int | None) -> bool:
    """Whether the system can keep the whole split in memory, so that one epoch alone reads it."""
    return free_bytes is None or bench.split_bytes < free_bytes


def _explain_others(bench: Bench) -> Iterator[str]:
    yield (
        f"Other programs limit, or this container's share of the CPU: a decoder that could use all "
        f"{format_count(bench.cores, 'core')} got {find_available(bench):.1f}."
    )
    yield "End them and measure again: every figure above is lower than this machine's."


def _explain_memory(bench: Bench) -> Iterator[str]:
    threads = format_count(bench.buffers.calls * bench.buffers.threads, "thread")
    yield (
        f"The memory budget limits: within max_ram, {threads} can decode batches of "
        f"{bench.options.batch_size}, and there are {format_count(bench.cores, 'core')}."
    )
    yield 'Give load_dataset more, such as max_ram="1GB", or smaller batches.'


def _explain_source(bench: Bench) -> Iterator[str]:
    remote, source = bench.shards.folder.is_remote, bench.figures["bytes"]
    what = "network" if remote else "disk"
    rate = source.images_per_s * bench.split_bytes / bench.records
    yield (
        f"The {what} limits: it gives {format_bytes(rate)} a second, which is "
        f"{source.images_per_s:,.0f} images, and the split is larger than the free memory."
    )
    nearer = "a machine in the region of the bucket" if remote else "a faster disk"
    yield f"Use {nearer}, or convert to fewer bytes: smaller images, or JPEG of a lower quality."


def _explain_decoder(bench: Bench) -> Iterator[str]:
    ours, decoder = choose_ours(bench), bench.figures["decoder"]
    yield f"The decoder limits: {_name_busy(bench)}, most of the time with decoding."
    if decoder.absent is None:
        share = ours.images_per_s / decoder.images_per_s
        yield f"You get {share:.0%} of what TensorFlow's bare decoder does from memory."
    yield (
        "More images a second take more cores, smaller images, or --encoding raw, which needs no "
        "decoder and more disk."
    )


def _explain_cpu(bench: Bench) -> Iterator[str]:
    work = "copying" if bench.shards.manifest.image.is_raw else "work after decoding"
    if bench.options.image_size and bench.shards.manifest.image.height is None:
        work = "resizing"
    yield f"The CPU limits: {_name_busy(bench)}, most of the time with {work}."
    if work == "resizing":
        yield "Convert to the size that you train with: --image-size."


def _explain_python(bench: Bench) -> Iterator[str]:
    ours = choose_ours(bench)
    yield (
        f"No part is busy all the time: {ours.cores:.1f} of "
        f"{format_count(bench.cores, 'core')} work. What is left is Python's work for each batch."
    )
    yield "Larger batches make it less."


_EXPLANATIONS: Final = {
    "others": _explain_others,
    "memory": _explain_memory,
    "disk": _explain_source,
    "network": _explain_source,
    "decoder": _explain_decoder,
    "cpu": _explain_cpu,
    "python": _explain_python,
}


def _name_busy(bench: Bench) -> str:
    return f"{choose_ours(bench).cores:.1f} of {format_count(bench.cores, 'core')} are busy"


def _add_advice(bench: Bench, limit: str) -> Iterator[str]:
    ours, small = choose_ours(bench), bench.figures["load_dataset_uint8"]
    if small.images_per_s > ours.images_per_s * WORTH_SAYING:
        yield (
            f'dtype="uint8" reads {small.images_per_s:,.0f} instead of {ours.images_per_s:,.0f} '
            "images/s: put keras.layers.Rescaling(1 / 255) into the model."
        )
    source = bench.figures["bytes"]
    if limit not in ("disk", "network") and source.images_per_s < ours.images_per_s:
        where = "store" if bench.shards.folder.is_remote else "disk"
        yield (
            f"The first epoch may be slower: the {where} alone gives {source.images_per_s:,.0f} "
            f"images/s. Later epochs find the {format_bytes(bench.split_bytes)} in "
            + ("the cache." if bench.shards.folder.is_remote else "memory.")
        )
    yield (
        f"A model that takes fewer than {ours.images_per_s:,.0f} images/s in training does not "
        "wait for its input."
    )
