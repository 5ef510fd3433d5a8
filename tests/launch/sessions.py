"""Stand-ins for sessions that are not at hand."""

from pyspark.errors import PySparkAttributeError


class OverConnect:
    """A session that has no SparkContext."""

    @property
    def sparkContext(self):
        raise PySparkAttributeError(errorClass="JVM_ATTRIBUTE_NOT_SUPPORTED", messageParameters={"attr_name": "it"})
