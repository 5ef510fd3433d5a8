"""Models that Spark fits."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from sparkrec.config.base import Fraction, Settings
from sparkrec.config.ingest import SourceSettings


class PopularitySettings(Settings):
    """Every user gets the most popular items."""

    kind: Literal["popularity"] = "popularity"


class BiasSettings(Settings):
    """Mean + user + item, by ridge regression: the residual of a rating after it is what other models explain."""

    kind: Literal["bias"] = "bias"
    user_regularization: float = Field(5.0, ge=0)
    """Shrinks a user's bias as that many ratings at the mean would."""
    item_regularization: float = Field(5.0, ge=0)
    """Shrinks an item's bias as that many ratings at the mean would."""
    iterations: int = Field(10, ge=1)
    """Alternating sweeps over items and users."""


class AttributeSettings(Settings):
    """Attributes of users or items: numbers are standardised, strings one-hot, arrays of strings multi-hot."""

    source: SourceSettings
    """The table of attributes."""
    id: str
    """Column of ids, as the interaction log has them."""
    columns: list[str] = Field(min_length=1)
    """Columns that are attributes."""
    min_count: int = Field(1, ge=1)
    """Categories that fewer users or items have share one column."""


class LinearSettings(Settings):
    """Ridge regression on user and item attributes: the baseline that knows nothing of the person."""

    kind: Literal["linear"] = "linear"
    users: AttributeSettings | None = None
    """Attributes of users. None: none."""
    items: AttributeSettings | None = None
    """Attributes of items. None: none."""
    regularization: float = Field(1.0, ge=0)
    """L2 on the coefficients."""

    @model_validator(mode="after")
    def _has_attributes(self) -> LinearSettings:
        if self.users is None and self.items is None:
            raise ValueError("linear has no attributes to work with: set model.users, model.items or both")
        return self


class _KnnSettings(Settings):
    neighbors: int = Field(100, ge=1)
    """The most similar that are kept of each."""
    shrinkage: float = Field(10.0, ge=0)
    """Added to the cosine's denominator: pulls similarities that rest on few interactions toward 0."""
    asymmetry: float = Field(0.5, ge=0, le=1)
    """alpha in the denominator |a|^(2 alpha) |b|^(2 - 2 alpha) of a and its neighbour b (Aiolli 2013). 0.5: the cosine;
    less favours popular items, or neighbours of short histories."""
    normalization: float = Field(0.0, ge=0, le=1)
    """Power of the sum of its similarities by which the vote of a neighbour is divided: 0 leaves it, 1 gives each
    neighbour the same say (Deshpande and Karypis 2004, section 4.1). Between them a neighbour of many loses weight."""
    weighting: Literal["none", "bm25", "tfidf"] = "none"
    """Of the interactions before the cosine."""


class ItemKnnSettings(_KnnSettings):
    """Items similar to what the user has."""

    kind: Literal["itemknn"] = "itemknn"


class UserKnnSettings(_KnnSettings):
    """What users with similar taste have."""

    kind: Literal["userknn"] = "userknn"


class EaseSettings(Settings):
    """Linear autoencoder with zero diagonal in closed form (Steck 2019). Holds an items x items matrix."""

    kind: Literal["ease"] = "ease"
    regularization: float = Field(200.0, gt=0)
    """L2 on the item-item weights."""
    max_memory_gb: float = Field(12.0, gt=0)
    """Refuse a catalogue whose matrices would take more on the driver."""


class AlsSettings(Settings):
    """Weighted alternating least squares, blockwise and in closed form (Hu et al. 2008; Rendle et al. 2022)."""

    kind: Literal["als"] = "als"
    rank: int = Field(64, ge=1, le=1024)
    """Length of the factors."""
    iterations: int = Field(15, ge=1)
    """Each updates all users, then all items."""
    regularization: float = Field(0.01, ge=0)
    """L2 on the factors, scaled for each row as `regularization_scaling` says."""
    regularization_scaling: Literal["count", "ials"] = "ials"
    """What reg_u grows with: count, n_u (as ALS-WR and MLlib); ials, n_u + unobserved_weight N (Rendle et al. 2022)."""
    regularization_exponent: float = Field(1.0, ge=0, le=1)
    """nu in reg_u = regularization (n_u + ...)^nu. 0: the same for all."""
    unobserved_weight: float = Field(0.0, ge=0)
    """Weight of every unobserved cell, whose target is 0. 0 fits the observed cells only: explicit feedback."""
    propensity_exponent: float = Field(0.0, ge=0, le=1)
    """eta: the confidence of a rating is divided by n_i^eta, and by the mean of that. What everybody meets says less
    about a taste (inverse propensity weights; Schnabel et al. 2016)."""
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
    biases: bool = False
    """Fit mean, user and item biases first and factorise the residuals (explicit feedback)."""
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
        if self.biases and self.unobserved_weight > 0:
            raise ValueError("biases are for explicit feedback: set unobserved_weight to 0 or biases to false")
        if self.nonnegative and self.solver != "cholesky":
            raise ValueError(f"nonnegative factors have one solver: set solver to cholesky instead of {self.solver}")
        return self


class MarkovSettings(Settings):
    """First-order Markov chain: the items that most often came next after a user's last event."""

    kind: Literal["markov"] = "markov"
    popularity: Fraction = 0.01
    """How much the popularity of an item counts beside that: it ranks what never came next."""
