"""RecBole's epochs: python recbole_peer.py CASE PAIRS.npy WARM_UP RUNS THREADS. Prints a line of JSON."""

import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import without_ray  # noqa: F401
from recbole.config import Config
from recbole.data import create_dataset, data_preparation
from recbole.utils import get_model, get_trainer, init_seed

CONTEXT = ["daytime", "weekday", "isweekend", "homework", "cost", "weather", "country", "city"]


SEQUENCES = {
    "sasrec_ce": {"hidden_size": 64, "inner_size": 64, "n_layers": 2, "n_heads": 1, "hidden_dropout_prob": 0.5,
                  "attn_dropout_prob": 0.5},
    "gru4rec": {"embedding_size": 64, "hidden_size": 128, "num_layers": 1, "dropout_prob": 0.2},
    "caser": {"embedding_size": 64, "nh": 8, "nv": 4, "dropout_prob": 0.2, "reg_weight": 0.0},
}  # fmt: skip


class Few:
    """The first batches of a loader."""

    def __init__(self, loader, n):
        self.loader, self.n = loader, n

    def __len__(self):
        return self.n

    def __iter__(self):
        return itertools.islice(iter(self.loader), self.n)

    def __getattr__(self, name):
        return getattr(self.loader, name)


def main(case: str, interactions: str, warm_up: int, runs: int, threads: int) -> None:
    torch.set_num_threads(threads)
    pairs = np.load(interactions)
    negatives = 1 if case == "bpr" else 4
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "log").mkdir()
        names = ["label", "user_id", "item_id", *CONTEXT]
        if pairs.shape[1] <= 3:
            names = ["user_id", "item_id", "timestamp"][: pairs.shape[1]]
        head = "\t".join(f"{name}:{'float' if name in ('label', 'timestamp') else 'token'}" for name in names)
        lines = "".join("\t".join(map(str, row)) + "\n" for row in pairs.tolist())
        Path(folder, "log", "log.inter").write_text(f"{head}\n{lines}")
        settings = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": names},
            "eval_args": {"split": {"RS": [0.998, 0.001, 0.001]}, "order": "RO", "group_by": None, "mode": "full"},
            "train_neg_sample_args": {"distribution": "uniform", "sample_num": negatives, "dynamic": False},
            "train_batch_size": 65536 if case == "neumf_65536" else 2048,
            "learner": "adam",
            "use_gpu": False,
            "show_progress": False,
            "worker": 0,
            "seed": 0,
            "state": "ERROR",
            "embedding_size": 64,
            "mf_embedding_size": 32,
            "mlp_embedding_size": 32,
            "mlp_hidden_size": [32, 16, 8],
            "dropout_prob": 0.0,
        }
        if case in ("fm", "deepfm"):
            settings |= {"embedding_size": 10, "mlp_hidden_size": [128, 128, 128], "LABEL_FIELD": "label"}
            settings |= {"train_neg_sample_args": None, "train_batch_size": 2048}
            settings["eval_args"] |= {"mode": "labeled"}
            negatives = 0
        if case in SEQUENCES:
            settings |= {
                "MAX_ITEM_LIST_LENGTH": 50,
                "train_neg_sample_args": None,
                "loss_type": "CE",
                **SEQUENCES[case],
            }
            settings["eval_args"] = {"split": {"LS": "valid_and_test"}, "order": "TO", "mode": "full"}
            negatives = 0
        name = {"bpr": "BPR", "fm": "FM", "deepfm": "DeepFM"}.get(case, "NeuMF")
        name = {"sasrec_ce": "SASRec", "gru4rec": "GRU4Rec", "caser": "Caser"}.get(case, name)
        config = Config(model=name, dataset="log", config_dict=settings)
        init_seed(0, True)
        train, _, _ = data_preparation(config, create_dataset(config))
        model = get_model(config["model"])(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        if case in SEQUENCES:
            train = Few(train, 10)
        seconds = []
        for epoch in range(warm_up + runs):
            started = time.perf_counter()
            trainer._train_epoch(train, epoch)
            seconds.append(time.perf_counter() - started)
    examples = len(train.dataset) * (1 if case == "bpr" else 1 + negatives)
    if case in SEQUENCES:
        examples = len(train) * 2048
    print(json.dumps({"examples_per_second": examples / statistics.median(seconds[warm_up:])}))


main(sys.argv[1], sys.argv[2], *map(int, sys.argv[3:6]))
