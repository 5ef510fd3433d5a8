"""RecBole's second epoch: python recbole_peer.py CASE PAIRS.npy quick|whole. Prints a line of JSON."""

import importlib.machinery
import json
import statistics
import sys
import tempfile
import time
import types
from pathlib import Path

import numpy as np
import torch

for name in ("ray", "ray.tune", "ray.tune.schedulers"):  # it imports them for a search that is not made here
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.tune = module.ASHAScheduler = None
    sys.modules[name] = module

from recbole.config import Config  # noqa: E402
from recbole.data import create_dataset, data_preparation  # noqa: E402
from recbole.utils import get_model, get_trainer, init_seed  # noqa: E402


def main(case: str, interactions: str, quick: bool) -> None:
    torch.set_num_threads(2)
    pairs = np.load(interactions)
    negatives = 1 if case == "bpr" else 4
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "log").mkdir()
        lines = "".join(f"{u}\t{i}\n" for u, i in pairs.tolist())
        Path(folder, "log", "log.inter").write_text("user_id:token\titem_id:token\n" + lines)
        settings = {
            "data_path": folder,
            "checkpoint_dir": folder,
            "load_col": {"inter": ["user_id", "item_id"]},
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
        config = Config(model="BPR" if case == "bpr" else "NeuMF", dataset="log", config_dict=settings)
        init_seed(0, True)
        train, _, _ = data_preparation(config, create_dataset(config))
        model = get_model(config["model"])(config, train.dataset)
        trainer = get_trainer(config["MODEL_TYPE"], config["model"])(config, model)
        seconds = []
        for epoch in range(2 if quick else 4):
            started = time.perf_counter()
            trainer._train_epoch(train, epoch)
            seconds.append(time.perf_counter() - started)
    examples = len(train.dataset) * (1 if case == "bpr" else 1 + negatives)
    print(json.dumps({"examples_per_second": round(examples / statistics.median(seconds[1:]))}))


main(sys.argv[1], sys.argv[2], sys.argv[3] == "quick")
