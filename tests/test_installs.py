"""The wheel and the sdist, installed into empty environments, as `scripts/run installs` does."""

from pathlib import Path

import installs
import pytest


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> tuple[Path, Path]:
    """The wheel and the sdist."""
    return installs.build(Path(tmp_path_factory.mktemp("dist")))


@pytest.fixture
def place(request, tmp_path) -> installs.Environment:
    """An empty environment of the Python that the test names."""
    python = installs.find_python(request.param)
    if python is None:
        pytest.skip(f"there is no Python {request.param} here")
    return installs.Environment(Path(tmp_path) / "venv", python, pinned=True)


@pytest.mark.parametrize("place", installs.VERSIONS, indirect=True)
def test_the_wheel_installs_and_works(place, built, capsys):
    installs.try_wheel(place, built[0], train=False)
    assert "converts; reads" in capsys.readouterr().out


@pytest.mark.parametrize("place", installs.VERSIONS[:1], indirect=True)
def test_the_sdist_installs_and_works(place, built):
    place.install(str(built[1]))
    place.run("python", "-c", installs.CONVERT)
    installs.try_sdist(place, built[1])


@pytest.mark.parametrize("place", installs.VERSIONS[1:2], indirect=True)
def test_a_command_that_fails_shows_what_it_printed(place):
    with pytest.raises(SystemExit, match="No module named 'pipelines'"):
        place.run("python", "-c", "import pipelines")


def test_a_python_that_is_not_here_is_not_found():
    assert installs.find_python("3.9.99") is None
