"""Every setting: its type, default, range and meaning. Frozen, strict, unknown keys refused."""

from sparkrec.config.base import (
    Fraction,
    Name,
    Reference,
    Settings,
    SparkSettings,
    StageSettings,
    TableName,
)
from sparkrec.config.data import DataFacts, chosen, values_of
from sparkrec.config.features import (
    AttributeSettings,
    CategoricalField,
    DateField,
    FeatureSettings,
    FieldSettings,
    MultiField,
    NumericField,
    SideFeatures,
)
from sparkrec.config.ingest import (
    ColumnSettings,
    FollowSettings,
    IngestSettings,
    SourceSettings,
)
from sparkrec.config.model import (
    AnyModel,
    Declaration,
    Likeness,
    ModelSettings,
    Parent,
    SequenceNeeds,
    Serving,
    UserRows,
    declaration,
    installed_kinds,
    kinds,
    kinds_that,
    model_settings,
    models_by_name,
)
from sparkrec.config.prepare import (
    ColdItems,
    ExplicitFeedback,
    FoldSplit,
    GivenSplit,
    ImplicitFeedback,
    LeaveLastOut,
    PrepareSettings,
    RatioSplit,
    RecentDays,
    SequenceSettings,
    Split,
    TimeSplit,
    instant,
)
from sparkrec.config.retrain import (
    Check,
    Checks,
    DataChecks,
    DriftChecks,
    GateSettings,
    ListChecks,
    MlflowSettings,
    NotifySettings,
    Outcome,
    RetentionSettings,
    RetrainSettings,
)
from sparkrec.config.schedule import ScheduleSettings, cron_values
from sparkrec.config.train import (
    Range,
    TrainSettings,
    TuneSettings,
)
from sparkrec.config.training import (
    Loss,
    ShardSettings,
    StoppingSettings,
    TrainingSettings,
)
from sparkrec.config.use import (
    EvaluateSettings,
    FullRanking,
    GivenCandidates,
    IdSource,
    ItemTitles,
    PipelineSettings,
    Protocol,
    RecommendSettings,
    RetrieveSettings,
    SampledNegatives,
)

STAGES: dict[str, type[StageSettings]] = {
    "ingest": IngestSettings,
    "prepare": PrepareSettings,
    "train": TrainSettings,
    "tune": TuneSettings,
    "evaluate": EvaluateSettings,
    "recommend": RecommendSettings,
    "run": PipelineSettings,
    "retrain": RetrainSettings,
}
"""Settings of each stage."""
