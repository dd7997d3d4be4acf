"""The packages that reading needs beyond the base: what to install if one is missing."""

import contextlib
from collections.abc import Iterator

from converter.errors import ShardmillError


@contextlib.contextmanager
def explain_missing_packages() -> Iterator[None]:
    """Turns a failed import into a `ShardmillError` that says what to install."""
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name == "simplejpeg":
            need, package = "decoding images needs simplejpeg", "simplejpeg"
        elif error.name in ("tensorflow", "keras"):
            need, package = "reading as a tf.data.Dataset needs TensorFlow", "tensorflow"
        else:
            raise
        raise ShardmillError(f"{need}: pip install {package}") from error
