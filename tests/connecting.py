"""A session over Spark Connect, for a process of its own: a process has sessions of one kind or the other."""

import socket

from pyspark.sql import SparkSession
from pyspark.sql.connect.client.core import DefaultChannelBuilder


def connect():
    """Start a server in this process and connect to it, on a free port: the usual one may be that of another test."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    DefaultChannelBuilder.default_port = staticmethod(lambda: port)
    builder = SparkSession.builder.remote("local[2]").config("spark.connect.grpc.binding.port", str(port))
    return builder.config("spark.sql.shuffle.partitions", 2).getOrCreate()
