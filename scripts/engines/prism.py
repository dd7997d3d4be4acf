"""Converts on Prism, Beam's own small engine, built from its source."""

from engines.parts import find_prism
from engines.proof import WORK, Cluster, Proof, make_images, run_script


def main() -> int:
    prism = find_prism()
    with Cluster(WORK / "prism") as cluster:
        proof = Proof(make_images(), cluster.folder)
        proof.convert("Prism", ("--runner=PrismRunner", f"--prism_location={prism}"))
    return proof.conclude()


if __name__ == "__main__":
    run_script(main)
