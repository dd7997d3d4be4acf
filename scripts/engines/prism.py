"""Converts on Prism, Beam's own small engine, built from its source."""

from engines.parts import find_prism
from engines.proof import PLANNED, WORK, Cluster, Proof, parse_images, run_script


def main() -> int:
    photos, pixels = parse_images(__doc__)
    prism = find_prism()
    with Cluster(WORK / "prism") as cluster:
        proof = Proof(cluster.folder)
        arguments = ("--runner=PrismRunner", f"--prism_location={prism}")
        proof.convert(photos, "Prism", arguments)
        proof.convert(pixels, "Prism, which plans, too", (*arguments, PLANNED))
    return proof.conclude()


if __name__ == "__main__":
    run_script(main)
