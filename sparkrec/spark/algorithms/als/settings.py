"""Settings of ALS."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparkrec.config.data import LEFT, DataFacts, FromData, significant
from sparkrec.config.model import ModelSettings
from sparkrec.errors import ConfigError
from sparkrec.spark.algorithms.bias import BiasSettings

UNOBSERVED = 20.0
"""What all cells without a row weigh together, over what those with one do."""
PENALTY = 0.2
"""Penalty of a row of factors over what its observed cells weigh, in a log of 100,000 rows."""
RATING_PENALTY = 1.2
"""Of ratings: deviations of a rating, times the root of the number of ratings."""


class AlsSettings(ModelSettings):
    """Weighted alternating least squares, blockwise: exact, by conjugate gradient or iALS++ (Hu et al. 2008)."""

    kind: Literal["als"] = "als"
    rank: int = Field(64, ge=1, le=1024)
    """Length of the factors."""
    iterations: int = Field(15, ge=1)
    """Each updates all users, then all items."""
    tolerance: float = Field(0.0, ge=0, lt=1)
    """Stop after an iteration that has lowered the loss by less than this share of it. 0: never."""
    regularization: FromData[float] = Field(LEFT, ge=0)
    """L2 on the factors, scaled for each row as `regularization_scaling` says. None: from the data. For implicit
    feedback a share of what the observed cells of a row of mean length weigh, .2 in a log of 100,000 rows and less in a
    larger one; for ratings 1.2 deviations."""
    regularization_scaling: Literal["count", "ials"] = "ials"
    """What reg_u grows with: count, n_u (as ALS-WR and MLlib); ials, n_u + unobserved_weight N (Rendle et al. 2022)."""
    regularization_exponent: FromData[float] = Field(LEFT, ge=0, le=1)
    """nu in reg_u = regularization (n_u + ...)^nu. 0: the same for all. None: .5 for explicit feedback whose
    regularization is left to the data, else 1."""
    unobserved_weight: FromData[float] = Field(LEFT, ge=0)
    """Weight of every unobserved cell, whose target is 0. 0 fits the observed cells only. None: 0 for explicit
    feedback; for implicit feedback what makes all unobserved cells together weigh 20 times the observed ones."""
    propensity_exponent: FromData[float] = Field(LEFT, ge=0, le=1)
    """eta: the confidence of a rating is divided by n_i^eta, and by the mean of that. What everybody meets says less
    about a taste (inverse propensity weights; Schnabel et al. 2016). None: .25 for implicit feedback whose
    unobserved_weight is left to the data, else 0."""
    solver: Literal["cholesky", "cg", "ials++"] = "cholesky"
    """cholesky: exact. cg: a few conjugate gradient steps from the last factors, cheaper. ials++: one sweep over blocks
    of coordinates (Rendle et al. 2021), cheaper from rank 128 on."""
    cg_steps: int = Field(3, ge=1)
    """Steps of solver `cg` for each row."""
    coordinates: int = Field(32, ge=1)
    """Size of the blocks of ials++."""
    kernel: Literal["numba", "torch"] = "numba"
    """numba: on CPUs. torch: for executors with a GPU, and needs torch there."""
    nonnegative: bool = False
    """No factor below zero (with cholesky only)."""
    biases: FromData[bool] = LEFT
    """Fit mean, user and item biases first and factorise the residuals. None: for explicit feedback, unless factors are
    nonnegative or unobserved cells have a weight."""
    bias: BiasSettings = BiasSettings()
    """How the biases of `biases` are fitted."""
    user_blocks: int | None = Field(None, ge=1)
    """Number of user blocks. None: from the data."""
    item_blocks: int | None = Field(None, ge=1)
    """Number of item blocks. None: from the data."""
    init_scale: float = Field(0.1, gt=0)
    """Item factors start from a normal distribution of this deviation over sqrt(rank)."""
    storage_level: Literal["MEMORY_AND_DISK", "MEMORY_ONLY", "DISK_ONLY"] = "MEMORY_AND_DISK"
    """Where the ratings are held between iterations."""
    snapshot_every: int = Field(5, ge=1)
    """Iterations between snapshots, from which a killed fit resumes."""

    @model_validator(mode="after")
    def _biases_are_explicit(self) -> AlsSettings:
        if self.biases and self.unobserved_weight:
            raise ValueError("biases are for explicit feedback: set unobserved_weight to 0 or biases to false")
        if self.nonnegative and self.solver != "cholesky":
            raise ValueError(f"nonnegative factors have one solver: set solver to cholesky instead of {self.solver}")
        return self

    def check_warm_start(self, earlier: ModelSettings) -> None:
        if earlier.kind != self.kind:
            raise ConfigError(f"found a {earlier.kind}, expected an als")
        if (rank := earlier.model_dump()["rank"]) != self.rank:
            raise ConfigError(f"found an als of rank {rank}, expected {self.rank}")

    def suited(self, data: DataFacts) -> AlsSettings:
        """Weights and penalties are relative to the data, so that the same numbers serve a log of five thousand rows
        and one of fifty million: the unobserved cells of a row to its observed ones, and the penalty to these. What a
        component keeps then depends on its singular value in the matrix of interactions divided by the roots of the
        counts of both sides, which is between 0 and 1 whatever the size."""
        left = {name: getattr(self, name) is None for name in type(self).model_fields}
        weight = self.unobserved_weight
        if left["unobserved_weight"]:
            weight = 0.0 if data.explicit else significant(UNOBSERVED * data.confidence * data.density)
        elif weight == 0 and not data.explicit:
            raise ValueError(
                "unobserved_weight is 0, and the feedback is implicit: every value to be fitted is 1, and nothing says "
                "what a user does not want. Leave it out, set it above 0, or prepare with feedback.kind explicit"
            )
        ratings = data.explicit and not weight
        exponent = self.regularization_exponent
        if left["regularization_exponent"]:
            exponent = 0.5 if ratings and left["regularization"] else 1.0
        n = max(data.rows_of_one, 1.0)
        penalty = RATING_PENALTY * (data.deviation or 1.0) * n**0.5 if ratings else PENALTY * data.confidence * n
        if not ratings:
            penalty *= data.scarcity
        if self.regularization_scaling == "ials":
            n += weight * (data.users * data.items) ** 0.5
        return self.filled(
            unobserved_weight=weight,
            regularization=significant(penalty / n**exponent),
            regularization_exponent=exponent,
            propensity_exponent=0.25 if left["unobserved_weight"] and not data.explicit else 0.0,
            biases=ratings and not self.nonnegative,
        )
