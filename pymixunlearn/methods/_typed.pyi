"""Methods as type checkers see them. Made by ``python -m benchmarks.report settings``."""

from __future__ import annotations

from typing import Literal, TypedDict, overload

from torch import nn
from typing_extensions import Unpack

from pymixunlearn.methods import boundary_expand
from pymixunlearn.methods import boundary_shrink
from pymixunlearn.methods import fine_tune
from pymixunlearn.methods import gli
from pymixunlearn.methods import gradient_ascent
from pymixunlearn.methods import l_mix
from pymixunlearn.methods import laf
from pymixunlearn.methods import laf_repair
from pymixunlearn.methods import neggrad
from pymixunlearn.methods import prune_reset
from pymixunlearn.methods import randlabel
from pymixunlearn.methods import retrain
from pymixunlearn.methods import salun
from pymixunlearn.methods import scrub
from pymixunlearn.methods import ssd
from pymixunlearn.methods import teachers
from pymixunlearn.methods import unroll
from pymixunlearn.methods.base import Method
from pymixunlearn.methods.boundary_expand import BoundaryExpandConfig
from pymixunlearn.methods.boundary_shrink import BoundaryShrinkConfig
from pymixunlearn.methods.eu_k import eu_k
from pymixunlearn.methods.eu_k.eu_k import EuKConfig
from pymixunlearn.methods.fine_tune import FineTuneConfig
from pymixunlearn.methods.gli import GliConfig
from pymixunlearn.methods.gradient_ascent import GradientAscentConfig
from pymixunlearn.methods.l_mix import LMixConfig
from pymixunlearn.methods.laf import LafConfig
from pymixunlearn.methods.laf_repair import LafRepairConfig
from pymixunlearn.methods.mixunlearn import method
from pymixunlearn.methods.mixunlearn import reset
from pymixunlearn.methods.mixunlearn.config import MixUnlearnConfig
from pymixunlearn.methods.mixunlearn.reset import MixUnlearnResetConfig
from pymixunlearn.methods.neggrad import NegGradConfig
from pymixunlearn.methods.prune_reset import PruneResetConfig
from pymixunlearn.methods.randlabel import RandLabelConfig
from pymixunlearn.methods.retrain import RetrainConfig
from pymixunlearn.methods.salun import SalUnConfig
from pymixunlearn.methods.scrub import ScrubConfig
from pymixunlearn.methods.sisa import dsmixup
from pymixunlearn.methods.sisa import sisa
from pymixunlearn.methods.sisa.dsmixup import DsMixupConfig
from pymixunlearn.methods.sisa.sisa import SisaConfig
from pymixunlearn.methods.ssd import SsdConfig
from pymixunlearn.methods.teachers import TeachersConfig
from pymixunlearn.methods.unroll import UnrollConfig

class BoundaryExpandSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    epochs: int
    lr: float
    momentum: float

class BoundaryExpand(boundary_expand.BoundaryExpand):
    def __init__(
        self, config: BoundaryExpandConfig | None = None, **fields: Unpack[BoundaryExpandSettings]
    ) -> None: ...

class BoundaryShrinkSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int
    lr: float
    momentum: float
    bound: float
    step: float | None
    nearest: Literal["other", "any"]

class BoundaryShrink(boundary_shrink.BoundaryShrink):
    def __init__(
        self, config: BoundaryShrinkConfig | None = None, **fields: Unpack[BoundaryShrinkSettings]
    ) -> None: ...

class DsMixupSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    shards: int
    slices: int
    epochs: int
    lr: float
    optimizer: Literal["sgd", "adam"]
    momentum: float
    weight_decay: float
    aggregate: Literal["mean", "majority"]
    weights: Literal["uniform", "size"]
    processes: int
    alpha: float

class DsMixup(dsmixup.DsMixup):
    def __init__(self, config: DsMixupConfig | None = None, **fields: Unpack[DsMixupSettings]) -> None: ...

class EuKSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    label_aware: bool
    epochs: int | None
    lr: float | None
    weight_decay: float
    frozen: float | None
    cache_mb: int

class EuK(eu_k.EuK):
    def __init__(self, config: EuKConfig | None = None, **fields: Unpack[EuKSettings]) -> None: ...

class FineTuneSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int
    lr: float
    momentum: float
    weight_decay: float

class FineTune(fine_tune.FineTune):
    def __init__(self, config: FineTuneConfig | None = None, **fields: Unpack[FineTuneSettings]) -> None: ...

class GliSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int
    lr: float
    momentum: float
    perturb_steps: int
    perturb_size: float
    guide_first: float
    guide_last: float
    validation: float
    stop_by: Literal["accuracy", "score"]
    tolerance: float
    check_interval: int
    patience: int

class Gli(gli.Gli):
    def __init__(self, config: GliConfig | None = None, **fields: Unpack[GliSettings]) -> None: ...

class GradientAscentSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int
    lr: float
    momentum: float

class GradientAscent(gradient_ascent.GradientAscent):
    def __init__(
        self, config: GradientAscentConfig | None = None, **fields: Unpack[GradientAscentSettings]
    ) -> None: ...

class LMixSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int | None
    extract_lr: float | None
    align_lr: float | None
    tau: float
    latent: int | None
    vae_epochs: int
    vae_lr: float
    kl_weight: float
    embedding_layer: str | None
    alpha: float
    mix_weight: float

class LMix(l_mix.LMix):
    def __init__(self, config: LMixConfig | None = None, **fields: Unpack[LMixSettings]) -> None: ...

class LafSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int | None
    extract_lr: float | None
    align_lr: float | None
    tau: float
    latent: int | None
    vae_epochs: int
    vae_lr: float
    kl_weight: float
    embedding_layer: str | None

class Laf(laf.Laf):
    def __init__(self, config: LafConfig | None = None, **fields: Unpack[LafSettings]) -> None: ...

class LafRepairSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int | None
    extract_lr: float | None
    align_lr: float | None
    tau: float
    latent: int | None
    vae_epochs: int
    vae_lr: float
    kl_weight: float
    embedding_layer: str | None
    repair_epochs: int
    repair_lr: float

class LafRepair(laf_repair.LafRepair):
    def __init__(self, config: LafRepairConfig | None = None, **fields: Unpack[LafRepairSettings]) -> None: ...

class MixUnlearnSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "auto", "accepted"]
    rollback: bool | None
    stop_samples: int
    stop_tolerance: float
    fast: bool
    channels_last: bool | None
    cuda_graphs: bool
    compile: bool
    cache_mb: int
    label_aware: bool
    pairing: Literal["zip", "grid"]
    epochs: int | None
    lr: float | None
    alpha: float
    tau_gen: float
    tau_mix: float
    tau_real: float
    omega: float
    sharpen_T: float
    generator_lr: float | None
    generator_interval: int
    adversary: Literal["current", "ema"]
    ema_momentum: float
    generator_warmup: int
    generator: Literal["mixblock", "mixblock-lam", "vanilla"]
    use_mix_loss: bool
    use_real_loss: bool
    sharpen: bool
    reduction: Literal["sum", "mean"]
    feature_layer: str | None

class MixUnlearn(method.MixUnlearn):
    def __init__(self, config: MixUnlearnConfig | None = None, **fields: Unpack[MixUnlearnSettings]) -> None: ...

class MixUnlearnResetSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    label_aware: bool
    epochs: int | None
    lr: float | None
    weight_decay: float
    share: float | None
    select: Literal["magnitude", "fisher"]
    schedule: Literal["close", "quick", "short"]
    mixed: float
    most: float
    generator: Literal["mixblock-lam", "vanilla"]
    generator_lr: float
    generator_interval: int
    feature_layer: str | None
    cache_mb: int

class MixUnlearnReset(reset.MixUnlearnReset):
    def __init__(
        self, config: MixUnlearnResetConfig | None = None, **fields: Unpack[MixUnlearnResetSettings]
    ) -> None: ...

class NegGradSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    form: Literal["weighted", "convex"]
    retain_weight: float
    alpha: float
    pull: float
    lr: float
    momentum: float
    epochs: int

class NegGrad(neggrad.NegGrad):
    def __init__(self, config: NegGradConfig | None = None, **fields: Unpack[NegGradSettings]) -> None: ...

class PruneResetSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    label_aware: bool
    epochs: int | None
    lr: float | None
    weight_decay: float
    share: float | None
    select: Literal["magnitude", "fisher"]
    schedule: Literal["close", "quick", "short"]

class PruneReset(prune_reset.PruneReset):
    def __init__(self, config: PruneResetConfig | None = None, **fields: Unpack[PruneResetSettings]) -> None: ...

class RandLabelSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "auto", "accepted"]
    rollback: bool | None
    stop_samples: int
    stop_tolerance: float
    epochs: int | None
    lr: float | None
    retain_weight: float

class RandLabel(randlabel.RandLabel):
    def __init__(self, config: RandLabelConfig | None = None, **fields: Unpack[RandLabelSettings]) -> None: ...

class RetrainSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    epochs: int | None
    lr: float | None
    weight_decay: float | None
    batch_size: int
    optimizer: Literal["adam", "adamw", "sgd"] | None
    momentum: float
    std_weight: float
    schedule: Literal["constant", "linear"]
    consistency: float | None
    ramp_up: float | None
    ema: float | None

class Retrain(retrain.Retrain):
    def __init__(self, config: RetrainConfig | None = None, **fields: Unpack[RetrainSettings]) -> None: ...

class SalUnSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    epochs: int
    lr: float
    momentum: float
    weight_decay: float
    salient: float
    retain_weight: float
    random_labels: Literal["other", "any"]
    order: Literal["mixed", "forget-first"]

class SalUn(salun.SalUn):
    def __init__(self, config: SalUnConfig | None = None, **fields: Unpack[SalUnSettings]) -> None: ...

class ScrubSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int | None
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    variant: Literal["small", "notebook", "large"]
    epochs: int | None
    max_epochs: int | None
    retain_batch_size: int | None
    optimizer: Literal["adam", "adamw", "sgd"] | None
    lr: float
    momentum: float
    weight_decay: float | None
    gamma: float | None
    alpha: float | None
    T: float | None
    decay_epochs: str | None
    decay: float
    rewind: bool
    validation: float

class Scrub(scrub.Scrub):
    def __init__(self, config: ScrubConfig | None = None, **fields: Unpack[ScrubSettings]) -> None: ...

class SisaSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    shards: int
    slices: int
    epochs: int
    lr: float
    optimizer: Literal["sgd", "adam"]
    momentum: float
    weight_decay: float
    aggregate: Literal["mean", "majority"]
    weights: Literal["uniform", "size"]
    processes: int

class Sisa(sisa.Sisa):
    def __init__(self, config: SisaConfig | None = None, **fields: Unpack[SisaSettings]) -> None: ...

class SsdSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    alpha: float
    lam: float
    importance: Literal["batch", "sample"]

class Ssd(ssd.Ssd):
    def __init__(self, config: SsdConfig | None = None, **fields: Unpack[SsdSettings]) -> None: ...

class TeachersSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    stop: Literal["epochs", "accepted"]
    rollback: bool | None
    teachers: Literal["trained", "bad"]
    epochs: int | None
    lr: float
    T: float
    retain_weight: float
    teacher_epochs: int
    teacher_lr: float | None
    teacher_batch_size: int
    retain_share: float

class Teachers(teachers.Teachers):
    def __init__(self, config: TeachersConfig | None = None, **fields: Unpack[TeachersSettings]) -> None: ...

class UnrollSettings(TypedDict, total=False):
    precision: Literal["float32", "bfloat16"] | None
    batch_size: int
    point: Literal["trained", "start"]
    lr: float | None
    train_epochs: int | None
    std_weight: float
    power_iterations: int

class Unroll(unroll.Unroll):
    def __init__(
        self, config: UnrollConfig | None = None, *, start: nn.Module | None = ..., **fields: Unpack[UnrollSettings]
    ) -> None: ...

@overload
def get(name: Literal["boundary-expand"]) -> type[BoundaryExpand]: ...
@overload
def get(name: Literal["boundary-shrink"]) -> type[BoundaryShrink]: ...
@overload
def get(name: Literal["dsmixup"]) -> type[DsMixup]: ...
@overload
def get(name: Literal["eu-k"]) -> type[EuK]: ...
@overload
def get(name: Literal["fine-tune"]) -> type[FineTune]: ...
@overload
def get(name: Literal["gli"]) -> type[Gli]: ...
@overload
def get(name: Literal["gradient-ascent"]) -> type[GradientAscent]: ...
@overload
def get(name: Literal["l-mix"]) -> type[LMix]: ...
@overload
def get(name: Literal["laf"]) -> type[Laf]: ...
@overload
def get(name: Literal["laf+r"]) -> type[LafRepair]: ...
@overload
def get(name: Literal["mixunlearn"]) -> type[MixUnlearn]: ...
@overload
def get(name: Literal["mixunlearn-reset"]) -> type[MixUnlearnReset]: ...
@overload
def get(name: Literal["neggrad"]) -> type[NegGrad]: ...
@overload
def get(name: Literal["prune-reset"]) -> type[PruneReset]: ...
@overload
def get(name: Literal["randlabel"]) -> type[RandLabel]: ...
@overload
def get(name: Literal["retrain"]) -> type[Retrain]: ...
@overload
def get(name: Literal["salun"]) -> type[SalUn]: ...
@overload
def get(name: Literal["scrub"]) -> type[Scrub]: ...
@overload
def get(name: Literal["sisa"]) -> type[Sisa]: ...
@overload
def get(name: Literal["ssd"]) -> type[Ssd]: ...
@overload
def get(name: Literal["ts"]) -> type[Teachers]: ...
@overload
def get(name: Literal["unroll"]) -> type[Unroll]: ...
@overload
def get(name: str) -> type[Method]: ...
