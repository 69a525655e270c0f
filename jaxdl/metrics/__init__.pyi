# The names of __init__.py, for type checkers and editors; tests/metrics/test_contents.py compares the two.
# ruff: noqa: I001
from jaxdl.metrics.accuracies import Accuracy as Accuracy, accuracy as accuracy
from jaxdl.metrics.agreement import (
    CohenKappa as CohenKappa,
    HammingLoss as HammingLoss,
    MatthewsCorrelation as MatthewsCorrelation,
    cohen_kappa as cohen_kappa,
    hamming_loss as hamming_loss,
    matthews_correlation as matthews_correlation,
)
from jaxdl.metrics.anomaly import (
    PointAdjustedF as PointAdjustedF,
    RangeF as RangeF,
    RangePrecision as RangePrecision,
    RangeRecall as RangeRecall,
    point_adjusted_f as point_adjusted_f,
    range_f as range_f,
    range_precision as range_precision,
    range_recall as range_recall,
)
from jaxdl.metrics.auc import (
    AveragePrecision as AveragePrecision,
    PRAUC as PRAUC,
    ROCAUC as ROCAUC,
    average_precision as average_precision,
    pr_auc as pr_auc,
    roc_auc as roc_auc,
)
from jaxdl.metrics.balanced import (
    BalancedAccuracy as BalancedAccuracy,
    GeometricMean as GeometricMean,
    HarmonicMean as HarmonicMean,
    balanced_accuracy as balanced_accuracy,
    geometric_mean as geometric_mean,
    harmonic_mean as harmonic_mean,
)
from jaxdl.metrics.boundary import BoundaryF as BoundaryF, boundary_f as boundary_f
from jaxdl.metrics.boxes import (
    MeanBoxIoU as MeanBoxIoU,
    box_ciou as box_ciou,
    box_diou as box_diou,
    box_giou as box_giou,
    box_iou as box_iou,
    convert_boxes as convert_boxes,
    mean_box_iou as mean_box_iou,
)
from jaxdl.metrics.calibration import (
    CalibrationCurve as CalibrationCurve,
    CalibrationError as CalibrationError,
    calibration_curve as calibration_curve,
    calibration_error as calibration_error,
    calibration_plot as calibration_plot,
)
from jaxdl.metrics.call import one_call as one_call
from jaxdl.metrics.class_report import (
    ClassificationReport as ClassificationReport,
    classification_report as classification_report,
    report_table as report_table,
)
from jaxdl.metrics.clustering import (
    AdjustedMutualInformation as AdjustedMutualInformation,
    AdjustedRandIndex as AdjustedRandIndex,
    Completeness as Completeness,
    FowlkesMallows as FowlkesMallows,
    Homogeneity as Homogeneity,
    MutualInformation as MutualInformation,
    NormalizedMutualInformation as NormalizedMutualInformation,
    RandIndex as RandIndex,
    VMeasure as VMeasure,
    adjusted_mutual_information as adjusted_mutual_information,
    adjusted_rand_index as adjusted_rand_index,
    completeness as completeness,
    fowlkes_mallows as fowlkes_mallows,
    homogeneity as homogeneity,
    mutual_information as mutual_information,
    normalized_mutual_information as normalized_mutual_information,
    rand_index as rand_index,
    v_measure as v_measure,
)
from jaxdl.metrics.clustering_moments import (
    CalinskiHarabasz as CalinskiHarabasz,
    WithinClusterSumOfSquares as WithinClusterSumOfSquares,
    calinski_harabasz as calinski_harabasz,
    within_cluster_sum_of_squares as within_cluster_sum_of_squares,
)
from jaxdl.metrics.clustering_points import (
    DaviesBouldin as DaviesBouldin,
    Silhouette as Silhouette,
    davies_bouldin as davies_bouldin,
    silhouette as silhouette,
)
from jaxdl.metrics.collection import Collection as Collection
from jaxdl.metrics.confusion import ConfusionMatrix as ConfusionMatrix, confusion_matrix as confusion_matrix
from jaxdl.metrics.correlation import (
    Concordance as Concordance,
    Kendall as Kendall,
    MedianAbsoluteError as MedianAbsoluteError,
    Pearson as Pearson,
    RelativeAbsoluteError as RelativeAbsoluteError,
    Spearman as Spearman,
    concordance as concordance,
    kendall as kendall,
    median_absolute_error as median_absolute_error,
    pearson as pearson,
    relative_absolute_error as relative_absolute_error,
    spearman as spearman,
)
from jaxdl.metrics.curves import (
    PrecisionRecallCurve as PrecisionRecallCurve,
    PrecisionRecallPoints as PrecisionRecallPoints,
    ROCCurve as ROCCurve,
    ROCPoints as ROCPoints,
    precision_recall_curve as precision_recall_curve,
    roc_curve as roc_curve,
    trim as trim,
)
from jaxdl.metrics.detection import CocoMAP as CocoMAP, VocMAP as VocMAP, coco_map as coco_map, voc_map as voc_map
from jaxdl.metrics.detection_input import (
    CocoArrays as CocoArrays,
    coco_arrays as coco_arrays,
    detection_arrays as detection_arrays,
)
from jaxdl.metrics.deviance import (
    GammaDeviance as GammaDeviance,
    PoissonDeviance as PoissonDeviance,
    TweedieDeviance as TweedieDeviance,
    gamma_deviance as gamma_deviance,
    poisson_deviance as poisson_deviance,
    tweedie_deviance as tweedie_deviance,
)
from jaxdl.metrics.drift import DriftCounts as DriftCounts, DriftMeasure as DriftMeasure
from jaxdl.metrics.drift_attribution import (
    AttributionDrift as AttributionDrift,
    AttributionSums as AttributionSums,
    attribution_drift as attribution_drift,
)
from jaxdl.metrics.drift_bins import Categories as Categories, category_ids as category_ids, fit_edges as fit_edges
from jaxdl.metrics.drift_exact import (
    ExactWasserstein as ExactWasserstein,
    two_sample_ks as two_sample_ks,
    two_sample_wasserstein as two_sample_wasserstein,
)
from jaxdl.metrics.drift_measures import (
    DriftChiSquare as DriftChiSquare,
    DriftHellinger as DriftHellinger,
    DriftJS as DriftJS,
    DriftKL as DriftKL,
    DriftKS as DriftKS,
    DriftLInfinity as DriftLInfinity,
    DriftTotalVariation as DriftTotalVariation,
    DriftWasserstein as DriftWasserstein,
    PopulationStabilityIndex as PopulationStabilityIndex,
    drift_chi_square as drift_chi_square,
    drift_hellinger as drift_hellinger,
    drift_js as drift_js,
    drift_kl as drift_kl,
    drift_ks as drift_ks,
    drift_l_infinity as drift_l_infinity,
    drift_total_variation as drift_total_variation,
    drift_wasserstein as drift_wasserstein,
    population_stability_index as population_stability_index,
)
from jaxdl.metrics.each_class import (
    OneVsOneAUC as OneVsOneAUC,
    OneVsRest as OneVsRest,
    PerLabel as PerLabel,
    one_vs_one_auc as one_vs_one_auc,
    one_vs_rest_auc as one_vs_rest_auc,
    per_label_auc as per_label_auc,
)
from jaxdl.metrics.facets import Facets as Facets, facet_ids as facet_ids
from jaxdl.metrics.fairness import (
    FacetConfusion as FacetConfusion,
    FacetLabels as FacetLabels,
    FacetMeasure as FacetMeasure,
)
from jaxdl.metrics.fairness_parity import (
    DemographicParityDifference as DemographicParityDifference,
    DemographicParityRatio as DemographicParityRatio,
    EqualOpportunityDifference as EqualOpportunityDifference,
    EqualOpportunityRatio as EqualOpportunityRatio,
    EqualizedOddsDifference as EqualizedOddsDifference,
    EqualizedOddsRatio as EqualizedOddsRatio,
    demographic_parity_difference as demographic_parity_difference,
    demographic_parity_ratio as demographic_parity_ratio,
    equal_opportunity_difference as equal_opportunity_difference,
    equal_opportunity_ratio as equal_opportunity_ratio,
    equalized_odds_difference as equalized_odds_difference,
    equalized_odds_ratio as equalized_odds_ratio,
)
from jaxdl.metrics.fairness_post import (
    AcceptanceRateDifference as AcceptanceRateDifference,
    AccuracyDifference as AccuracyDifference,
    ConditionalAcceptanceDifference as ConditionalAcceptanceDifference,
    ConditionalRejectionDifference as ConditionalRejectionDifference,
    DisparateImpact as DisparateImpact,
    GeneralizedEntropy as GeneralizedEntropy,
    PredictedConditionalDemographicDisparity as PredictedConditionalDemographicDisparity,
    PredictedPositiveProportionDifference as PredictedPositiveProportionDifference,
    RecallDifference as RecallDifference,
    RejectionRateDifference as RejectionRateDifference,
    SpecificityDifference as SpecificityDifference,
    TreatmentEquality as TreatmentEquality,
    acceptance_rate_difference as acceptance_rate_difference,
    accuracy_difference as accuracy_difference,
    conditional_acceptance_difference as conditional_acceptance_difference,
    conditional_rejection_difference as conditional_rejection_difference,
    disparate_impact as disparate_impact,
    generalized_entropy as generalized_entropy,
    predicted_conditional_demographic_disparity as predicted_conditional_demographic_disparity,
    predicted_positive_proportion_difference as predicted_positive_proportion_difference,
    recall_difference as recall_difference,
    rejection_rate_difference as rejection_rate_difference,
    specificity_difference as specificity_difference,
    treatment_equality as treatment_equality,
)
from jaxdl.metrics.fairness_pre import (
    ClassImbalance as ClassImbalance,
    ConditionalDemographicDisparity as ConditionalDemographicDisparity,
    FacetJS as FacetJS,
    FacetKL as FacetKL,
    FacetKS as FacetKS,
    FacetLP as FacetLP,
    FacetTVD as FacetTVD,
    LabelJSDivergence as LabelJSDivergence,
    LabelKLDivergence as LabelKLDivergence,
    LabelKolmogorovSmirnov as LabelKolmogorovSmirnov,
    LabelL2Distance as LabelL2Distance,
    LabelTotalVariation as LabelTotalVariation,
    PositiveProportionDifference as PositiveProportionDifference,
    class_imbalance as class_imbalance,
    conditional_demographic_disparity as conditional_demographic_disparity,
    facet_js as facet_js,
    facet_kl as facet_kl,
    facet_ks as facet_ks,
    facet_lp as facet_lp,
    facet_tvd as facet_tvd,
    label_js_divergence as label_js_divergence,
    label_kl_divergence as label_kl_divergence,
    label_kolmogorov_smirnov as label_kolmogorov_smirnov,
    label_l2_distance as label_l2_distance,
    label_total_variation as label_total_variation,
    positive_proportion_difference as positive_proportion_difference,
)
from jaxdl.metrics.fairness_report import (
    Bias as Bias,
    BiasReport as BiasReport,
    posttraining_bias as posttraining_bias,
    pretraining_bias as pretraining_bias,
)
from jaxdl.metrics.flips import FlipTest as FlipTest, flip_test as flip_test
from jaxdl.metrics.forecast_distributions import (
    CRPS as CRPS,
    GaussianCRPS as GaussianCRPS,
    IntervalCoverage as IntervalCoverage,
    IntervalScore as IntervalScore,
    IntervalWidth as IntervalWidth,
    MSIS as MSIS,
    crps as crps,
    gaussian_crps as gaussian_crps,
    interval_coverage as interval_coverage,
    interval_score as interval_score,
    interval_width as interval_width,
    msis as msis,
)
from jaxdl.metrics.forecast_points import (
    MASE as MASE,
    NormalizedDeviation as NormalizedDeviation,
    NormalizedRMSE as NormalizedRMSE,
    RMSSE as RMSSE,
    mase as mase,
    normalized_deviation as normalized_deviation,
    normalized_rmse as normalized_rmse,
    rmsse as rmsse,
    seasonal_error as seasonal_error,
)
from jaxdl.metrics.forecasting import (
    QuantileCoverage as QuantileCoverage,
    QuantileLoss as QuantileLoss,
    WeightedQuantileLoss as WeightedQuantileLoss,
    quantile_coverage as quantile_coverage,
    quantile_loss as quantile_loss,
    weighted_quantile_loss as weighted_quantile_loss,
)
from jaxdl.metrics.groups import By as By, by as by, group_ids as group_ids
from jaxdl.metrics.histograms import Bits16 as Bits16, Histogram as Histogram
from jaxdl.metrics.means import Mean as Mean, MeanOf as MeanOf, mean as mean
from jaxdl.metrics.metric import Derived as Derived, Metric as Metric
from jaxdl.metrics.multilabel import (
    ExactMatch as ExactMatch,
    MultilabelConfusionMatrix as MultilabelConfusionMatrix,
    exact_match as exact_match,
    multilabel_confusion_matrix as multilabel_confusion_matrix,
)
from jaxdl.metrics.nab import (
    NABScore as NABScore,
    NABScoreAt as NABScoreAt,
    nab_score as nab_score,
    nab_score_at as nab_score_at,
    nab_windows as nab_windows,
)
from jaxdl.metrics.operating import (
    BestThreshold as BestThreshold,
    EqualErrorRate as EqualErrorRate,
    KolmogorovSmirnov as KolmogorovSmirnov,
    PrecisionAtRecall as PrecisionAtRecall,
    RecallAtPrecision as RecallAtPrecision,
    best_threshold as best_threshold,
    equal_error_rate as equal_error_rate,
    kolmogorov_smirnov as kolmogorov_smirnov,
    precision_at_recall as precision_at_recall,
    recall_at_precision as recall_at_precision,
)
from jaxdl.metrics.probabilities import (
    BrierScore as BrierScore,
    CrossEntropy as CrossEntropy,
    LogLoss as LogLoss,
    Perplexity as Perplexity,
    brier_score as brier_score,
    cross_entropy as cross_entropy,
    log_loss as log_loss,
    perplexity as perplexity,
)
from jaxdl.metrics.quantities import (
    Max as Max,
    Min as Min,
    StandardDeviation as StandardDeviation,
    Sum as Sum,
    Variance as Variance,
    max_of as max_of,
    min_of as min_of,
    standard_deviation as standard_deviation,
    sum_of as sum_of,
    variance as variance,
)
from jaxdl.metrics.queries import PaddedQueries as PaddedQueries, pad_queries as pad_queries
from jaxdl.metrics.r_squared import (
    AdjustedR2 as AdjustedR2,
    ExplainedVariance as ExplainedVariance,
    R2 as R2,
    RelativeSquaredError as RelativeSquaredError,
    adjusted_r2 as adjusted_r2,
    explained_variance as explained_variance,
    r2 as r2,
    relative_squared_error as relative_squared_error,
)
from jaxdl.metrics.ranking import (
    DCG as DCG,
    FallOut as FallOut,
    HitRate as HitRate,
    MeanReciprocalRank as MeanReciprocalRank,
    NDCG as NDCG,
    PrecisionAtK as PrecisionAtK,
    RPrecision as RPrecision,
    RecallAtK as RecallAtK,
    RetrievalMAP as RetrievalMAP,
    dcg as dcg,
    fall_out as fall_out,
    hit_rate as hit_rate,
    mean_reciprocal_rank as mean_reciprocal_rank,
    ndcg as ndcg,
    precision_at_k as precision_at_k,
    r_precision as r_precision,
    recall_at_k as recall_at_k,
    retrieval_map as retrieval_map,
)
from jaxdl.metrics.rates import (
    F1 as F1,
    FBeta as FBeta,
    FalseDiscoveryRate as FalseDiscoveryRate,
    FalseNegativeRate as FalseNegativeRate,
    FalsePositiveRate as FalsePositiveRate,
    Jaccard as Jaccard,
    NegativePredictiveValue as NegativePredictiveValue,
    Precision as Precision,
    Recall as Recall,
    Specificity as Specificity,
    TruePositiveRate as TruePositiveRate,
    f1 as f1,
    f_beta as f_beta,
    false_discovery_rate as false_discovery_rate,
    false_negative_rate as false_negative_rate,
    false_positive_rate as false_positive_rate,
    jaccard as jaccard,
    negative_predictive_value as negative_predictive_value,
    precision as precision,
    recall as recall,
    specificity as specificity,
    true_positive_rate as true_positive_rate,
)
from jaxdl.metrics.regression import (
    HuberLoss as HuberLoss,
    LogCosh as LogCosh,
    MaxError as MaxError,
    MeanAbsoluteError as MeanAbsoluteError,
    MeanSquaredError as MeanSquaredError,
    PinballLoss as PinballLoss,
    RootMeanSquaredError as RootMeanSquaredError,
    huber_loss as huber_loss,
    log_cosh as log_cosh,
    max_error as max_error,
    mean_absolute_error as mean_absolute_error,
    mean_squared_error as mean_squared_error,
    pinball_loss as pinball_loss,
    root_mean_squared_error as root_mean_squared_error,
)
from jaxdl.metrics.relative_errors import (
    MeanAbsolutePercentageError as MeanAbsolutePercentageError,
    MeanSquaredLogError as MeanSquaredLogError,
    RootMeanSquaredLogError as RootMeanSquaredLogError,
    SymmetricMeanAbsolutePercentageError as SymmetricMeanAbsolutePercentageError,
    mean_absolute_percentage_error as mean_absolute_percentage_error,
    mean_squared_log_error as mean_squared_log_error,
    root_mean_squared_log_error as root_mean_squared_log_error,
    symmetric_mean_absolute_percentage_error as symmetric_mean_absolute_percentage_error,
)
from jaxdl.metrics.resample import (
    Interval as Interval,
    bootstrap as bootstrap,
    confidence_interval as confidence_interval,
)
from jaxdl.metrics.scores import Exact as Exact
from jaxdl.metrics.segmentation import (
    Dice as Dice,
    FrequencyWeightedIoU as FrequencyWeightedIoU,
    GeneralizedDice as GeneralizedDice,
    IoU as IoU,
    MeanIoU as MeanIoU,
    MeanPixelAccuracy as MeanPixelAccuracy,
    PixelAccuracy as PixelAccuracy,
    dice as dice,
    frequency_weighted_iou as frequency_weighted_iou,
    generalized_dice as generalized_dice,
    iou as iou,
    mean_iou as mean_iou,
    mean_pixel_accuracy as mean_pixel_accuracy,
    pixel_accuracy as pixel_accuracy,
)
from jaxdl.metrics.show import confusion_plot as confusion_plot, confusion_table as confusion_table
from jaxdl.metrics.sketch import Quantiles as Quantiles, quantiles as quantiles
from jaxdl.metrics.text import (
    BLEU as BLEU,
    CHRF as CHRF,
    CharErrorRate as CharErrorRate,
    EditDistance as EditDistance,
    MatchErrorRate as MatchErrorRate,
    ROUGE as ROUGE,
    SentenceBLEU as SentenceBLEU,
    SentenceCHRF as SentenceCHRF,
    WordErrorRate as WordErrorRate,
    WordInformationLost as WordInformationLost,
    WordInformationPreserved as WordInformationPreserved,
    bleu as bleu,
    char_error_rate as char_error_rate,
    chrf as chrf,
    cut_at as cut_at,
    edit_distance as edit_distance,
    match_error_rate as match_error_rate,
    rouge as rouge,
    sentence_bleu as sentence_bleu,
    sentence_chrf as sentence_chrf,
    word_error_rate as word_error_rate,
    word_information_lost as word_information_lost,
    word_information_preserved as word_information_preserved,
)
from jaxdl.metrics.topic_words import (
    document_log_likelihood as document_log_likelihood,
    sliding_windows as sliding_windows,
    top_words as top_words,
)
from jaxdl.metrics.topics import (
    NPMICoherence as NPMICoherence,
    PerWordLogLikelihood as PerWordLogLikelihood,
    TopicDiversity as TopicDiversity,
    TopicPerplexity as TopicPerplexity,
    UMassCoherence as UMassCoherence,
    npmi_coherence as npmi_coherence,
    per_word_log_likelihood as per_word_log_likelihood,
    topic_diversity as topic_diversity,
    topic_perplexity as topic_perplexity,
    umass_coherence as umass_coherence,
)
