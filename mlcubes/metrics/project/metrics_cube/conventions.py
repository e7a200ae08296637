"""What a metric is where its formula has no value: the one place, as data.

Every table maps a metric to a number or to the name of one:

``diagonal_mm``  length of the image's diagonal, sqrt(sum((n_i * spacing_i)^2)): 373.128664 mm at 240x240x155, 1 mm
``voxels``       number of voxels of the reference image: 8 928 000 at 240x240x155
``nan``          not a number
``formula``      the ordinary formula has a value here

In the first three tables Dice, Hausdorff95, Sensitivity, Specificity and Precision are FeTS 2022's (CaPTk's behaviour
on empty masks); Hausdorff95Surfel and the lesion-wise metrics follow the BraTS 2023 script; the rest is ours. The last
table is the penalty row of the FeTS container for a prediction that is missing or cannot be used.
"""

from typing import Final

Convention = dict[str, float | str]

CONVENTIONS: Final[dict[str, Convention]] = {
    "both_empty": {
        "Dice": 1.0,
        "Hausdorff95": 0.0,
        "Hausdorff95Directed": 0.0,
        "Hausdorff95Surfel": 0.0,
        "Sensitivity": 1.0,
        "Specificity": 1.0,
        "Precision": "nan",
        "NSD": 1.0,
        "RelativeVolumeDifference": 0.0,
        "LesionDice": 1.0,
        "LesionHausdorff95": 0.0,
    },
    "reference_empty": {
        "Dice": 0.0,
        "Hausdorff95": "diagonal_mm",
        "Hausdorff95Directed": "diagonal_mm",
        "Hausdorff95Surfel": 374.0,
        "Sensitivity": 0.0,
        "Specificity": "formula",
        "Precision": 0.0,
        "NSD": 0.0,
        "RelativeVolumeDifference": "nan",
        "LesionDice": "formula",
        "LesionHausdorff95": "formula",
    },
    "prediction_empty": {
        "Dice": 0.0,
        "Hausdorff95": "diagonal_mm",
        "Hausdorff95Directed": "diagonal_mm",
        "Hausdorff95Surfel": 374.0,
        "Sensitivity": 0.0,
        "Specificity": 1.0,
        "Precision": "nan",
        "NSD": 0.0,
        "RelativeVolumeDifference": -1.0,
        "LesionDice": "formula",
        "LesionHausdorff95": "formula",
    },
    "penalty": {
        "Dice": 0.0,
        "Hausdorff95": 374.0,
        "Hausdorff95Directed": 374.0,
        "Hausdorff95Surfel": 374.0,
        "Sensitivity": 0.0,
        "Specificity": 0.0,
        "Precision": 0.0,
        "TP": 0.0,
        "FP": 0.0,
        "TN": 0.0,
        "FN": "voxels",
        "NSD": 0.0,
        "RelativeVolumeDifference": -1.0,
        "LesionDice": 0.0,
        "LesionHausdorff95": 374.0,
    },
}
