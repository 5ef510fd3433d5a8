"""spark-submit jobs/retrain.py --config conf/retrain/NAME.yaml key.sub=value ..."""

from sparkrec.cli import main

if __name__ == "__main__":
    main("retrain")
