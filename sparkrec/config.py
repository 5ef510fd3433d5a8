"""Every setting: its type, default, range and meaning. Frozen, strict, unknown keys refused."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

Name: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
"""A dataset, model or batch: letters, digits, `_`, `.` and `-`. It becomes part of a path."""

TableName: TypeAlias = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,99}$")]
"""A table of the lake."""

Reference: TypeAlias = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}(@[0-9a-f]{12})?$")]
"""A finished run by name (its latest) or pinned, `name@id`."""

Fraction: TypeAlias = Annotated[float, Field(ge=0, lt=1)]


class Settings(BaseModel):
    """Base of all settings."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, use_attribute_docstrings=True)


class SparkSettings(Settings):
    """How a session is made when none is active (spark-submit and notebooks bring their own)."""

    master: str = "local[*]"
    """Master URL."""
    memory: str = Field("4g", pattern=r"^[0-9]+[kmgt]$")
    """Driver memory."""
    shuffle_partitions: int = Field(8, ge=1)
    """Tasks of a shuffle. A cluster wants two to four a core; a laptop few."""
    conf: dict[str, str] = {}
    """Further Spark settings."""


class StageSettings(Settings):
    """What every stage has."""

    lake: str = Field(min_length=1)
    """Root folder of the lake: a local path, or a URI that Spark and pyarrow both reach (s3, gs, abfs, hdfs)."""
    spark: SparkSettings = SparkSettings()
    """The session, when there is none yet."""


# --- reading ----------------------------------------------------------------------------------------------------


class SourceSettings(Settings):
    """Files or a table to read."""

    path: str = Field(min_length=1)
    """File, folder or glob; for `delta` the table's folder."""
    format: Literal["csv", "json", "parquet", "delta"]
    """`json` is one object a line."""
    options: dict[str, str] = {}
    """Options of Spark's reader; CSV files have a header unless `header` is "false"."""


class ColumnSettings(Settings):
    """Which column of the source is what."""

    user: str = "user"
    item: str = "item"
    rating: str | None = None
    """Rating, play count or weight. None: every row weighs 1."""
    timestamp: str | None = None
    event: str | None = None
    """Kind of event, such as view, cart, buy."""
    context: list[str] = []
    """Further columns, kept as they are."""

    @field_validator("context")
    @classmethod
    def _names_are_free(cls, context: list[str]) -> list[str]:
        taken = {
            "user_id",
            "item_id",
            "rating",
            "timestamp",
            "event",
            "batch",
            "reason",
            "source_file",
            "row",
            "digest",
        }
        if clash := sorted(taken.intersection(context)):
            raise ValueError(
                f"{', '.join(clash)}: the table has columns of that name already; rename them at the source"
            )
        return context


class IngestSettings(StageSettings):
    """Take one batch of an interaction log into a Delta table."""

    source: SourceSettings
    columns: ColumnSettings = ColumnSettings()
    table: TableName = "interactions"
    """Target; what is refused goes to `<table>_rejected`."""
    batch: Name | None = None
    """Id of this batch. None: made from its content."""
    id_type: Literal["source", "string", "long"] = "source"
    """Type of user and item ids. `source`: integers become long, strings stay strings."""
    timestamp_format: str = "auto"
    """`auto`: timestamps as they are, numbers as seconds since 1970, strings as ISO 8601. `seconds`, `milliseconds`,
    or a Spark datetime pattern."""
    on_null_timestamp: Literal["reject", "keep"] = "reject"
    max_abs_rating: float = Field(1e6, gt=0)
    """A rating of larger magnitude is rejected."""
    max_rejected: float = Field(0.1, ge=0, le=1)
    """Share of rejected rows above which the job fails and writes nothing."""


# --- preparing --------------------------------------------------------------------------------------------------


class ExplicitFeedback(Settings):
    """Ratings as values to predict."""

    kind: Literal["explicit"] = "explicit"
    scale: Literal["identity", "log", "quantile"] = "identity"
    """From counts or weights to ratings: as they are; log(1 + x); or the quantile of x among the user's own, in
    `levels` steps from 1."""
    levels: int = Field(5, ge=2)


class ImplicitFeedback(Settings):
    """Interactions as preference 1 with a confidence (Hu, Koren and Volinsky 2008, section 4)."""

    kind: Literal["implicit"] = "implicit"
    threshold: float | None = None
    """Rows whose weight is below it are dropped."""
    confidence: Literal["one", "linear", "log"] = "one"
    """c = 1; c = 1 + alpha r; or c = 1 + alpha log(1 + r / epsilon)."""
    alpha: float = Field(1.0, ge=0)
    epsilon: float = Field(1.0, gt=0)


class LeaveLastOut(Settings):
    """The last interactions of a user are held out. Needs timestamps; ties go by item."""

    kind: Literal["leave_last_out"] = "leave_last_out"
    test: int = Field(1, ge=0)
    validation: int = Field(1, ge=0)
    min_train: int = Field(1, ge=1)
    """Users who would keep fewer train interactions give nothing away."""


def instant(text: str) -> datetime:
    """The point in time of an ISO 8601 text; UTC unless it says otherwise."""
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError:
        raise ValueError(f"{text!r} is not an ISO 8601 timestamp, such as 2024-01-31T18:00:00") from None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


class TimeSplit(Settings):
    """Everything from a point in time on is held out."""

    kind: Literal["time"] = "time"
    test_from: str
    """ISO 8601 timestamp (UTC)."""
    validation_from: str | None = None

    @model_validator(mode="after")
    def _in_order(self) -> TimeSplit:
        test_from = instant(self.test_from)
        if self.validation_from is not None and instant(self.validation_from) >= test_from:
            raise ValueError(f"{self.validation_from} is not before test_from, {self.test_from}")
        return self


class RatioSplit(Settings):
    """A share of each user's interactions, drawn at random."""

    kind: Literal["ratio"] = "ratio"
    test: Fraction = 0.2
    validation: Fraction = 0.1
    seed: int = 0


class FoldSplit(Settings):
    """One fold of k over all interactions is the test split."""

    kind: Literal["fold"] = "fold"
    folds: int = Field(5, ge=2)
    fold: int = Field(0, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _fold_exists(self) -> FoldSplit:
        if self.fold >= self.folds:
            raise ValueError(f"fold {self.fold} does not exist among {self.folds}: they count from 0")
        return self


class GivenSplit(Settings):
    """Train and test tables as somebody else split them."""

    kind: Literal["given"] = "given"
    test: TableName
    """Ingested table of test interactions."""
    candidates: str | None = None
    """Context column of the test table: an array of item ids to rank the test item among."""
    validation: Fraction = 0.0
    """Share of each user's train interactions to hold out for tuning."""
    validation_items: int = Field(0, ge=0)
    """Or this many of them."""
    seed: int = 0


Split: TypeAlias = Annotated[
    LeaveLastOut | TimeSplit | RatioSplit | FoldSplit | GivenSplit, Field(discriminator="kind")
]


class PrepareSettings(StageSettings):
    """Turn interactions into a dataset: integer ids, values, splits."""

    dataset: Name
    interactions: TableName = "interactions"
    version: int | None = Field(None, ge=0)
    """Delta version to read. None: the latest, pinned in the manifest."""
    dedup: Literal["last", "sum", "max", "none"] = "last"
    """What becomes of several rows of one user and item. `last` goes by timestamp."""
    event_weights: dict[str, Annotated[float, Field(allow_inf_nan=False)]] | None = None
    """Factor on the rating for each kind of event; 0 drops it, a kind that is not listed is an error."""
    feedback: Annotated[ExplicitFeedback | ImplicitFeedback, Field(discriminator="kind")] = ImplicitFeedback()
    min_user_interactions: int = Field(1, ge=1)
    """k-core: users and items with fewer are dropped, again and again until none is left."""
    min_item_interactions: int = Field(1, ge=1)
    split: Split = LeaveLastOut()

    @model_validator(mode="after")
    def _test_is_another_table(self) -> PrepareSettings:
        if isinstance(self.split, GivenSplit) and self.split.test == self.interactions:
            raise ValueError(f"split.test names the interactions table {self.interactions!r} itself")
        return self


# --- models -----------------------------------------------------------------------------------------------------


class PopularitySettings(Settings):
    """Every user gets the most popular items."""

    kind: Literal["popularity"] = "popularity"


class BiasSettings(Settings):
    """Mean + user + item, by ridge regression: the residual of a rating after it is what other models explain."""

    kind: Literal["bias"] = "bias"
    user_regularization: float = Field(5.0, ge=0)
    """Shrinks a user's bias as that many ratings at the mean would."""
    item_regularization: float = Field(5.0, ge=0)
    iterations: int = Field(10, ge=1)
    """Alternating sweeps over items and users."""


class AttributeSettings(Settings):
    """Attributes of users or items: numbers are standardised, strings one-hot, arrays of strings multi-hot."""

    source: SourceSettings
    id: str
    columns: list[str] = Field(min_length=1)
    min_count: int = Field(1, ge=1)
    """Categories that fewer users or items have share one column."""


class LinearSettings(Settings):
    """Ridge regression on user and item attributes: the baseline that knows nothing of the person."""

    kind: Literal["linear"] = "linear"
    users: AttributeSettings | None = None
    items: AttributeSettings | None = None
    regularization: float = Field(1.0, ge=0)


class _KnnSettings(Settings):
    neighbors: int = Field(100, ge=1)
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
    coordinates: int = Field(32, ge=1)
    """Size of the blocks of ials++."""
    kernel: Literal["numba", "torch"] = "numba"
    """numba: on CPUs. torch: for executors with a GPU, and needs torch there."""
    nonnegative: bool = False
    """No factor below zero (with cholesky only)."""
    biases: bool = False
    """Fit mean, user and item biases first and factorise the residuals (explicit feedback)."""
    bias: BiasSettings = BiasSettings()
    user_blocks: int | None = Field(None, ge=1)
    """Number of user blocks. None: from the data."""
    item_blocks: int | None = Field(None, ge=1)
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


class ShardSettings(Settings):
    """How the examples are cut for the processes that train."""

    of_group: int | None = Field(None, ge=1)
    """None: one for each process. The steps are the same for any number of processes up to this."""
    groups: int = Field(1, ge=1)
    """An epoch goes over this many groups of shards, one after the other. More take less memory, and mix less."""


class StoppingSettings(Settings):
    """When to stop early: after `patience` measurements without a better one. The best is kept."""

    metric: Literal["ndcg", "hit_rate", "recall"] = "ndcg"
    k: int = Field(10, ge=1)
    every: int = Field(1, ge=1)
    """Epochs between measurements on the validation split."""
    patience: int = Field(3, ge=1)
    users: int = Field(10_000, ge=1)
    """Measure on at most this many users."""


Loss: TypeAlias = Literal[
    "squared", "weighted_squared", "bce", "bpr", "hinge", "softmax", "full_softmax", "all_squared"
]


class TrainingSettings(Settings):
    """How a network is trained, whatever it is."""

    loss: Loss = "bce"
    """squared: observed values. weighted_squared: 1 of positives, 0 of negatives, which have `negative_weight`. bce:
    binary cross-entropy of the same. bpr, hinge: a positive over its negatives (Rendle et al. 2009). softmax: a
    positive among its negatives, corrected for how they are drawn; full_softmax among all items. all_squared:
    weighted_squared with every item as a negative of every user."""
    negatives: int = Field(4, ge=0)
    """Drawn for each positive in each epoch."""
    negative_sampling: Literal["items", "batch"] = "items"
    """items: drawn for each positive. batch: the positives of the batch, for bpr, hinge and softmax."""
    popularity_power: float = Field(0.0, ge=0, le=1)
    """a of sampling by popularity^a. 0: uniform."""
    negative_weight: float = Field(1.0, gt=0)
    epochs: int = Field(20, ge=1)
    batch: int = Field(2048, ge=1)
    """Positives in a step, all processes together."""
    accumulate: int = Field(1, ge=1)
    """Parts in which a process computes its batch, one after the other, to save memory."""
    optimizer: Literal["sgd", "adagrad", "rmsprop", "adam", "adamw"] = "adam"
    learning_rate: float = Field(1e-3, gt=0)
    momentum: float = Field(0.0, ge=0, lt=1)
    """Of sgd."""
    weight_decay: float = Field(0.0, ge=0)
    """Of adamw, on all; of the others, L2 on the dense layers."""
    user_l2: float = Field(0.0, ge=0)
    """L2 on the rows of users that a batch reads: once for each of their positives."""
    item_l2: float = Field(0.0, ge=0)
    """L2 on the rows of items that a batch reads: each as often as it is a positive or a negative."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Of the learning rate, down to 0 at the last step."""
    warmup_steps: int = Field(0, ge=0)
    clip_norm: float | None = Field(None, gt=0)
    """Of the gradient of the dense layers."""
    init_scale: float = Field(0.01, gt=0)
    """Deviation of the embeddings at the start."""
    processes: int = Field(1, ge=1)
    threads: int | None = Field(None, ge=1)
    """Of each process. None: the cores of the machine, shared among its processes."""
    launcher: Literal["local", "horovod", "torch"] | None = None
    """None: local for one process, horovod for more."""
    device: Literal["cpu", "gpu"] = "cpu"
    """gpu: each process uses one of its machine's, by its number there."""
    precision: Literal["float32", "bfloat16"] = "float32"
    """bfloat16: products of the dense layers in half as many bits; weights, gradients and losses stay float32."""
    checkpoint_every: int = Field(1, ge=1)
    """Epochs between checkpoints, from which a killed run resumes."""
    stall_seconds: int = Field(300, ge=1)
    """A run in which a process makes no step for so long is ended."""
    shards: ShardSettings = ShardSettings()
    stopping: StoppingSettings | None = None


class _NetworkSettings(Settings):
    training: TrainingSettings = TrainingSettings()


class MfSettings(_NetworkSettings):
    """Matrix factorization with biases (Koren et al. 2009)."""

    kind: Literal["mf"] = "mf"
    dim: int = Field(64, ge=1)


class GmfSettings(_NetworkSettings):
    """Generalized matrix factorization (He et al. 2017)."""

    kind: Literal["gmf"] = "gmf"
    dim: int = Field(64, ge=1)


class _Layers(_NetworkSettings):
    layers: list[int] = Field([64, 32, 16, 8], min_length=2)
    """Sizes, from the concatenation of user and item on."""
    dropout: float = Field(0.0, ge=0, lt=1)

    @field_validator("layers")
    @classmethod
    def _halves(cls, layers: list[int]) -> list[int]:
        if layers[0] % 2 or min(layers) < 1:
            raise ValueError(f"expected positive sizes, the first even for user and item to share, found {layers}")
        return layers


class MlpSettings(_Layers):
    """Multi-layer perceptron on user and item (He et al. 2017)."""

    kind: Literal["mlp"] = "mlp"


class NeumfSettings(_Layers):
    """GMF and MLP in one (He et al. 2017)."""

    kind: Literal["neumf"] = "neumf"
    dim: int = Field(32, ge=1)
    """Of the GMF part."""
    start_from: list[Reference] = []
    """A trained gmf and mlp of the same sizes."""


ModelSettings: TypeAlias = Annotated[
    PopularitySettings
    | BiasSettings
    | LinearSettings
    | ItemKnnSettings
    | UserKnnSettings
    | EaseSettings
    | AlsSettings
    | MfSettings
    | GmfSettings
    | MlpSettings
    | NeumfSettings,
    Field(discriminator="kind"),
]


class TrainSettings(StageSettings):
    """Fit one model to one dataset."""

    dataset: Reference
    model: ModelSettings
    name: Name | None = None
    """What to call it. None: `<dataset>-<kind>`."""
    include_validation: bool = False
    """Fit train and validation together: for the last fit, after tuning."""
    seed: int = 0

    @model_validator(mode="after")
    def _stopping_measures_what_is_not_fitted(self) -> TrainSettings:
        if self.include_validation and isinstance(self.model, _NetworkSettings) and self.model.training.stopping:
            raise ValueError(
                "training.stopping measures on the validation split, which include_validation fits: set it to null, "
                "and training.epochs to what was best"
            )
        return self


# --- using ------------------------------------------------------------------------------------------------------


class IdSource(Settings):
    """A list of ids as the interaction log has them."""

    source: SourceSettings
    column: str


class RecommendSettings(StageSettings):
    """Write the best k items of every user."""

    model: Reference
    k: int = Field(10, ge=1)
    users: IdSource | None = None
    """None: all users of the dataset."""
    candidates: IdSource | None = None
    """Recommend only these items."""
    deny: IdSource | None = None
    """Never recommend these items."""
    exclude_seen: bool = True


class FullRanking(Settings):
    """Rank every item that the user has not in train."""

    kind: Literal["full"] = "full"


class GivenCandidates(Settings):
    """Rank the candidates that came with each test row."""

    kind: Literal["candidates"] = "candidates"


class SampledNegatives(Settings):
    """Rank the held-out items among n that the user has in no split. Cheaper, and biased (Krichene and Rendle 2020)."""

    kind: Literal["sampled"] = "sampled"
    negatives: int = Field(100, ge=1)
    seed: int = 0


Protocol: TypeAlias = Annotated[FullRanking | GivenCandidates | SampledNegatives, Field(discriminator="kind")]


class EvaluateSettings(StageSettings):
    """Measure a model on a held-out split."""

    model: Reference
    split: Literal["test", "validation"] = "test"
    protocol: Protocol = FullRanking()
    cutoffs: list[Annotated[int, Field(ge=1)]] = Field([10], min_length=1)
    """The k of every metric at k."""
    ratings: bool = False
    """Also RMSE and MAE of predicted ratings."""
    clip: tuple[float, float] | None = None
    """Clip predicted ratings to this range first."""
    segments: int = Field(3, ge=1, le=10)
    """Groups of users by activity and of items by popularity, of about equal size."""


class Range(Settings):
    """Values to draw from at random."""

    low: float
    high: float
    log: bool = False
    integer: bool = False


class TuneSettings(StageSettings):
    """Try settings of one model and keep the best."""

    dataset: Reference
    model: ModelSettings
    """Where a trial starts; `space` replaces keys of it."""
    space: dict[str, list[int | float | str | bool] | Range]
    """Dotted key of the model's settings to the values to try."""
    search: Literal["grid", "random"] = "grid"
    trials: int = Field(20, ge=1)
    """Number of random draws."""
    folds: int = Field(0, ge=0)
    """Cross-validate on this many folds of train and validation. 0: fit train, measure on the validation split."""
    metric: str = "ndcg@10"
    """`rmse`, `mae` or a ranking metric with its cutoff; full ranking."""
    clip: tuple[float, float] | None = None
    seed: int = 0
    name: Name | None = None
    """What to call the run. None: `<dataset>-<kind>`."""
    best: str | None = None
    """Where to write the train config of the best trial (YAML)."""


class PipelineSettings(StageSettings):
    """All stages in order; each entry is a stage's settings without `lake` and `spark`, or a YAML file of them."""

    ingest: list[dict[str, object] | str] = []
    prepare: dict[str, object] | str
    train: list[dict[str, object] | str] = Field(min_length=1)
    evaluate: list[dict[str, object] | str] | None = None
    """One entry is enough: it is done for every model."""
    recommend: dict[str, object] | str | None = None
