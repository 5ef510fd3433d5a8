"""Lets RecBole be imported without ray, which it takes for a search that is not made here."""

import importlib.machinery
import sys
import types

for name in ("ray", "ray.tune", "ray.tune.schedulers"):
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.tune = module.ASHAScheduler = None
    sys.modules[name] = module
