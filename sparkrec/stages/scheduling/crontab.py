"""A line for cron, with the time zone above it."""

from __future__ import annotations

import shlex

from sparkrec.errors import CHAMPION_KEPT, MAY_PASS, ConfigError
from sparkrec.stages.scheduling.scheduled import Scheduled

_LONGEST = 998
"""Characters of a command that every cron takes."""


def render(nights: Scheduled) -> str:
    """Lines of a crontab. cron mails what they print: where a run failed, its exit code and where its log is."""
    schedule, log = nights.schedule, f"retrain-{nights.name}.log"
    run = shlex.join(nights.in_time(nights.program, "retrain", *nights.arguments))
    command = (
        f"cd {shlex.quote(nights.directory)} || exit; "
        f"for left in {' '.join(map(str, range(schedule.retries, -1, -1)))}; do "
        f"{run} >>{log} 2>&1; code=$?; "
        f"[ $code = {MAY_PASS} ] && [ $left != 0 ] || break; sleep {60 * schedule.retry_minutes}; done; "
        f'[ $code = 0 ] || [ $code = {CHAMPION_KEPT} ] || echo "{nights.name}: exit code $code, see $PWD/{log}"'
    ).replace("%", r"\%")  # which is a line's end to cron
    if len(command) > _LONGEST:
        raise ConfigError(
            f"the command has {len(command):,} characters, and cron takes {_LONGEST}. Put overrides into the config."
        )
    return f"""{nights.head}
# There is no need of flock: who finds the name held by another run is refused.
# Where cron does not know CRON_TZ (Debian's does not), this has to be the time zone of the machine.
CRON_TZ={schedule.timezone}
{schedule.cron} {command}
"""
