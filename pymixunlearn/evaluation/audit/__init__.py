"""Audits with shadow models: what a model still betrays of single samples, measured on arrays of margins."""

from pymixunlearn.evaluation.audit.klom import klom
from pymixunlearn.evaluation.audit.lira import lira_scores, u_lira_scores
from pymixunlearn.evaluation.audit.margins import log_confidences, logit_margins
from pymixunlearn.evaluation.audit.measure import ATTACKS, AttackInfo, ShadowMargins, measure
from pymixunlearn.evaluation.audit.plan import ShadowPlan, check_auditable, plan_shadows
from pymixunlearn.evaluation.audit.rates import Rates, auc, model_rates, sample_rates, tpr_at_fpr
from pymixunlearn.evaluation.audit.rmia import rmia_scores, tune_rmia

__all__ = [
    "ATTACKS",
    "AttackInfo",
    "Rates",
    "ShadowMargins",
    "ShadowPlan",
    "auc",
    "check_auditable",
    "klom",
    "lira_scores",
    "log_confidences",
    "logit_margins",
    "measure",
    "model_rates",
    "plan_shadows",
    "rmia_scores",
    "sample_rates",
    "tpr_at_fpr",
    "tune_rmia",
    "u_lira_scores",
]
