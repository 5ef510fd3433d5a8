"""The session that all contestants on Spark get, and the linear algebra that MLlib has in it.

MLlib calls BLAS and LAPACK of the system where it can load them, and falls back to Java without a word otherwise. On
Debian `apt-get install libopenblas0-pthread` puts them where it looks. `BENCH_BLAS` names a library elsewhere that has
both (`libopenblas.so.0`); `LD_LIBRARY_PATH` has to name the folder of what that needs itself.
"""

from __future__ import annotations

import os
import sys
from typing import Any

from sparkrec.errors import ConfigError

NATIVE, JAVA = "native", "java"


def session(threads: int, blas: str = JAVA) -> Any:
    """local[threads] with `BENCH_MEMORY` (10g) for the JVM; without Delta, which none of them needs here.

    threads  tasks at a time; the libraries of a task have one thread each
    blas     NATIVE, or JAVA: the JVM's vector instructions
    """
    from pyspark.sql import SparkSession

    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")
    named = f"nativeLibPath={os.environ['BENCH_BLAS']}" if "BENCH_BLAS" in os.environ else ""
    of_java = ["--add-modules=jdk.incubator.vector"]
    for name in ("blas", "lapack"):
        library = "nativeLib=none" if blas == JAVA else named or f"nativeLib=lib{name}.so.3"
        of_java.append(f"-Ddev.ludovic.netlib.{name}.{library}")
    settings: dict[str, bool | float | int | str | None] = {
        "spark.master": f"local[{threads}]",
        "spark.driver.memory": os.environ.get("BENCH_MEMORY", "10g"),
        "spark.driver.extraJavaOptions": " ".join(of_java),
        "spark.sql.shuffle.partitions": "8",
        "spark.ui.enabled": "false",
        "spark.ui.showConsoleProgress": "false",
        "spark.log.level": "ERROR",
        # A row of ours may be a block of factors: a batch of 10,000 of them (Spark's default) would not fit in memory.
        "spark.sql.execution.arrow.maxBytesPerBatch": str(64 << 20),
    }
    return SparkSession.builder.config(map=settings).getOrCreate()


def linear_algebra(spark: Any, blas: str) -> str:
    """The classes that MLlib calls; an error where NATIVE was wanted and is not what it has."""
    of_class = spark._jvm.java.lang.Class.forName
    used = []
    for name, getter in (("ml.linalg.BLAS$", "nativeBLAS"), ("mllib.linalg.LAPACK$", "nativeLAPACK")):
        module = of_class(f"org.apache.spark.{name}").getField("MODULE$").get(None)
        used.append(getattr(module, getter)().getClass().getSimpleName())
    native = all(name.startswith("JNI") for name in used)
    if native != (blas == NATIVE):
        raise ConfigError(
            f"MLlib has {' and '.join(used)}, expected {blas} ones: `apt-get install libopenblas0-pthread`, or name a "
            "library with BENCH_BLAS"
        )
    return ", ".join(used)
