"""Metrics: one pure, mergeable record each, and one function each; jax and numpy only.

This file is the table of contents: which module holds which names. Each is imported when first used; type checkers
read the same names in `__init__.pyi`."""

from __future__ import annotations

import importlib
from typing import Any

_FAMILIES: dict[str, dict[str, str]] = {
    "the contract, and what is made of metrics": {
        "metric": "Derived Metric",
        "means": "Mean mean MeanOf",
        "call": "one_call",
        "collection": "Collection",
        "groups": "By by group_ids",
        "resample": "bootstrap confidence_interval Interval",
    },
    "classification": {
        "accuracies": "Accuracy accuracy",
        "rates": (
            "F1 f1 FalseDiscoveryRate false_discovery_rate FalseNegativeRate false_negative_rate "
            "FalsePositiveRate false_positive_rate FBeta f_beta Jaccard jaccard NegativePredictiveValue "
            "negative_predictive_value Precision precision Recall recall Specificity specificity "
            "TruePositiveRate true_positive_rate"
        ),
        "balanced": "BalancedAccuracy balanced_accuracy GeometricMean geometric_mean HarmonicMean harmonic_mean",
        "each_class": "OneVsOneAUC one_vs_one_auc OneVsRest one_vs_rest_auc PerLabel per_label_auc",
        "agreement": "CohenKappa cohen_kappa HammingLoss hamming_loss MatthewsCorrelation matthews_correlation",
        "multilabel": "ExactMatch exact_match MultilabelConfusionMatrix multilabel_confusion_matrix",
        "confusion": "ConfusionMatrix confusion_matrix",
        "show": "confusion_plot confusion_table",
        "class_report": "ClassificationReport classification_report report_table",
        "probabilities": "BrierScore brier_score CrossEntropy cross_entropy LogLoss log_loss Perplexity perplexity",
        "calibration": "CalibrationCurve calibration_curve CalibrationError calibration_error calibration_plot",
    },
    "curves": {
        "scores": "Exact",
        "histograms": "Bits16 Histogram",
        "auc": "AveragePrecision average_precision PRAUC pr_auc ROCAUC roc_auc",
        "curves": (
            "PrecisionRecallCurve precision_recall_curve PrecisionRecallPoints ROCCurve roc_curve ROCPoints trim"
        ),
        "operating": (
            "BestThreshold best_threshold EqualErrorRate equal_error_rate KolmogorovSmirnov "
            "kolmogorov_smirnov PrecisionAtRecall precision_at_recall RecallAtPrecision recall_at_precision"
        ),
    },
    "regression": {
        "regression": (
            "HuberLoss huber_loss LogCosh log_cosh MaxError max_error MeanAbsoluteError mean_absolute_error "
            "MeanSquaredError mean_squared_error PinballLoss pinball_loss RootMeanSquaredError "
            "root_mean_squared_error"
        ),
        "r_squared": (
            "AdjustedR2 adjusted_r2 ExplainedVariance explained_variance R2 r2 RelativeSquaredError "
            "relative_squared_error"
        ),
        "relative_errors": (
            "MeanAbsolutePercentageError mean_absolute_percentage_error MeanSquaredLogError "
            "mean_squared_log_error RootMeanSquaredLogError root_mean_squared_log_error "
            "SymmetricMeanAbsolutePercentageError symmetric_mean_absolute_percentage_error"
        ),
        "correlation": (
            "Concordance concordance Kendall kendall MedianAbsoluteError median_absolute_error Pearson "
            "pearson RelativeAbsoluteError relative_absolute_error Spearman spearman"
        ),
        "deviance": ("GammaDeviance gamma_deviance PoissonDeviance poisson_deviance TweedieDeviance tweedie_deviance"),
    },
    "quantities of anything": {
        "quantities": "Max max_of Min min_of StandardDeviation standard_deviation Sum sum_of Variance variance",
        "sketch": "Quantiles quantiles",
    },
    "ranking": {
        "queries": "PaddedQueries pad_queries",
        "ranking": (
            "DCG dcg FallOut fall_out HitRate hit_rate MeanReciprocalRank mean_reciprocal_rank NDCG ndcg "
            "PrecisionAtK precision_at_k RecallAtK recall_at_k RetrievalMAP retrieval_map RPrecision "
            "r_precision"
        ),
    },
    "clustering": {
        "clustering": (
            "AdjustedMutualInformation adjusted_mutual_information AdjustedRandIndex adjusted_rand_index "
            "Completeness completeness FowlkesMallows fowlkes_mallows Homogeneity homogeneity "
            "MutualInformation mutual_information NormalizedMutualInformation normalized_mutual_information "
            "RandIndex rand_index VMeasure v_measure"
        ),
        "clustering_moments": (
            "CalinskiHarabasz calinski_harabasz WithinClusterSumOfSquares within_cluster_sum_of_squares"
        ),
        "clustering_points": "DaviesBouldin davies_bouldin Silhouette silhouette",
    },
    "forecasting": {
        "forecasting": (
            "QuantileCoverage quantile_coverage QuantileLoss quantile_loss WeightedQuantileLoss weighted_quantile_loss"
        ),
        "forecast_points": (
            "MASE mase NormalizedDeviation normalized_deviation NormalizedRMSE normalized_rmse RMSSE rmsse "
            "seasonal_error"
        ),
        "forecast_distributions": (
            "CRPS crps GaussianCRPS gaussian_crps IntervalCoverage interval_coverage IntervalScore "
            "interval_score IntervalWidth interval_width MSIS msis"
        ),
    },
    "anomaly": {
        "anomaly": (
            "PointAdjustedF point_adjusted_f RangeF range_f RangePrecision range_precision RangeRecall range_recall"
        ),
        "nab": "NABScore nab_score NABScoreAt nab_score_at nab_windows",
    },
    "segmentation and detection": {
        "segmentation": (
            "Dice dice FrequencyWeightedIoU frequency_weighted_iou GeneralizedDice generalized_dice IoU iou "
            "MeanIoU mean_iou MeanPixelAccuracy mean_pixel_accuracy PixelAccuracy pixel_accuracy"
        ),
        "boundary": "BoundaryF boundary_f",
        "boxes": "box_ciou box_diou box_giou box_iou convert_boxes MeanBoxIoU mean_box_iou",
        "detection": "CocoMAP coco_map VocMAP voc_map",
        "detection_input": "CocoArrays coco_arrays detection_arrays",
    },
    "text and topics": {
        "text": (
            "BLEU bleu CharErrorRate char_error_rate CHRF chrf cut_at EditDistance edit_distance "
            "MatchErrorRate match_error_rate ROUGE rouge SentenceBLEU sentence_bleu SentenceCHRF "
            "sentence_chrf WordErrorRate word_error_rate WordInformationLost word_information_lost "
            "WordInformationPreserved word_information_preserved"
        ),
        "topics": (
            "NPMICoherence npmi_coherence PerWordLogLikelihood per_word_log_likelihood TopicDiversity "
            "topic_diversity TopicPerplexity topic_perplexity UMassCoherence umass_coherence"
        ),
        "topic_words": "document_log_likelihood sliding_windows top_words",
    },
    "fairness": {
        "facets": "facet_ids Facets",
        "fairness": "FacetConfusion FacetLabels FacetMeasure",
        "fairness_parity": (
            "DemographicParityDifference demographic_parity_difference DemographicParityRatio "
            "demographic_parity_ratio EqualizedOddsDifference equalized_odds_difference EqualizedOddsRatio "
            "equalized_odds_ratio EqualOpportunityDifference equal_opportunity_difference "
            "EqualOpportunityRatio equal_opportunity_ratio"
        ),
        "fairness_pre": (
            "ClassImbalance class_imbalance ConditionalDemographicDisparity conditional_demographic_disparity "
            "FacetJS facet_js FacetKL facet_kl FacetKS facet_ks FacetLP facet_lp FacetTVD facet_tvd "
            "LabelJSDivergence label_js_divergence LabelKLDivergence label_kl_divergence "
            "LabelKolmogorovSmirnov label_kolmogorov_smirnov LabelL2Distance label_l2_distance "
            "LabelTotalVariation label_total_variation PositiveProportionDifference "
            "positive_proportion_difference"
        ),
        "fairness_post": (
            "AcceptanceRateDifference acceptance_rate_difference AccuracyDifference accuracy_difference "
            "ConditionalAcceptanceDifference conditional_acceptance_difference ConditionalRejectionDifference "
            "conditional_rejection_difference DisparateImpact disparate_impact GeneralizedEntropy "
            "generalized_entropy PredictedConditionalDemographicDisparity "
            "predicted_conditional_demographic_disparity PredictedPositiveProportionDifference "
            "predicted_positive_proportion_difference RecallDifference recall_difference "
            "RejectionRateDifference rejection_rate_difference SpecificityDifference specificity_difference "
            "TreatmentEquality treatment_equality"
        ),
        "fairness_report": "Bias BiasReport posttraining_bias pretraining_bias",
        "flips": "FlipTest flip_test",
    },
    "drift": {
        "drift": "DriftCounts DriftMeasure",
        "drift_bins": "Categories category_ids fit_edges",
        "drift_measures": (
            "DriftChiSquare drift_chi_square DriftHellinger drift_hellinger DriftJS drift_js DriftKL drift_kl "
            "DriftKS drift_ks DriftLInfinity drift_l_infinity DriftTotalVariation drift_total_variation "
            "DriftWasserstein drift_wasserstein PopulationStabilityIndex population_stability_index"
        ),
        "drift_exact": "ExactWasserstein two_sample_ks two_sample_wasserstein",
        "drift_attribution": "AttributionDrift attribution_drift AttributionSums",
    },
}
_HOME = {name: module for family in _FAMILIES.values() for module, names in family.items() for name in names.split()}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        import difflib

        near = difflib.get_close_matches(name, _HOME, 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise AttributeError(f"jaxdl.metrics has no {name!r}{hint}")
    value = getattr(importlib.import_module(f"jaxdl.metrics.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
