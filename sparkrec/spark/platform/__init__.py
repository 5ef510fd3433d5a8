"""Sessions, the lake, sources: what differs between Sparks, clouds and catalogues is here alone."""

from sparkrec import object_stores
from sparkrec.spark.platform.s3 import session_settings

object_stores.ask(session_settings)
