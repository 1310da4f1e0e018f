"""What people call the metrics, in the order they are shown in."""

BY_LABEL = {
    "recall@1": "Recall@1",
    "recall@5": "Recall@5",
    "recall@10": "Recall@10",
    "map@r": "mAP@R",
}
MORE_BY_LABEL = {
    "r_precision": "R-precision",
    "ndcg": "nDCG@R",
    "knn": "kNN accuracy",
    "linear_probe": "linear probe",
}
BY_TEXT = {f"text_to_image_recall@{k}": f"text to image R@{k}" for k in (1, 5, 10)}
MORE_BY_TEXT = {f"image_to_text_recall@{k}": f"image to text R@{k}" for k in (1, 5, 10)}
SHORT = {**BY_LABEL, **BY_TEXT}
ALL = {**BY_LABEL, **MORE_BY_LABEL, **BY_TEXT, **MORE_BY_TEXT}
