"""Pack .venv and sparkrec into one archive that spark-submit ships to the executors.

usage: setup/pack.py ARCHIVE [--with-torch]

Executors need the same Python at the same path, and bring their own Spark.
"""

import argparse
from pathlib import Path

import venv_pack

SPARK = ["pyspark/jars", "pyspark/examples", "pyspark/data"]
TOOLS = ["cmake*", "mypy*", "*__mypyc*", "ruff*", "pip", "setuptools", "pytest*", "_pytest", "grimp*"]
DISPENSABLE = ["matplotlib*", "mpl_toolkits", "fontTools", "fonttools*", "pillow*", "PIL", "implicit*"]
PEERS = ["sklearn", "scikit_learn*", "ranx*", "torchmetrics*", "lightning_utilities*", "*pytrec_eval*", "hypothesis*"]
PEERS += ["_hypothesis*", "fastparquet*", "cramjam*", "lxml*", "seaborn*", "ir_datasets*", "narwhals*", "joblib*"]
# What an object store on loopback and the pages of docs are made with.
WORKSHOP = ["moto*", "boto3*", "botocore*", "s3transfer*", "flask*", "werkzeug*", "mkdocs*", "material*", "babel*"]
WORKSHOP += ["pymdown*", "griffe*", "backrefs*"]
TORCH = ["torch*", "nvidia*", "triton*", "horovod*", "functorch", "sympy*", "networkx*", "cuda*", "cu*_*"]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("archive")
    parser.add_argument("--with-torch", action="store_true", help="for training with torch: 5 GB more")
    arguments = parser.parse_args()
    environment = venv_pack.Env(".venv")
    site = next(Path(".venv/lib").glob("python3.*/site-packages")).relative_to(".venv")
    # The editable install points at this checkout, which executors do not have: its sources go in by themselves.
    unwanted = [
        "__editable__*",
        *SPARK,
        *TOOLS,
        *DISPENSABLE,
        *PEERS,
        *WORKSHOP,
        *([] if arguments.with_torch else TORCH),
    ]
    for name in unwanted:
        environment = environment.exclude(f"{site}/{name}").exclude(f"{site}/{name}/*")
    environment = environment.exclude("bin/ruff").exclude(".*")
    # Compiled kernels too: executors take them as they are while the sources keep their times, else compile anew.
    for source in [
        *Path("sparkrec").rglob("*.py"),
        *Path("sparkrec").rglob("*.html"),
        *Path("sparkrec").rglob("__pycache__/*.nb[ci]"),
    ]:
        environment.files.append(venv_pack.core.File(str(source.resolve()), f"{site}/{source}"))
    Path(arguments.archive).parent.mkdir(parents=True, exist_ok=True)
    environment.pack(output=arguments.archive, force=True, compress_level=1)


if __name__ == "__main__":
    main()
