"""What an operator can set for compression dictionaries."""

from __future__ import annotations

from datetime import timedelta

from webhook_shared.settings import ByteCount, Duration, Section, setting


class DictionarySection(Section):
    """`webhook.dictionaries`: compression dictionaries that are trained on what comes in."""

    training: bool = setting(
        True, description="Train them; what is trained already goes on being used either way."
    )
    check_interval: Duration = setting(
        timedelta(minutes=1),
        ge=timedelta(seconds=1),
        description="How often to look whether some source should be trained.",
    )
    rest_interval: Duration = setting(
        timedelta(hours=24),
        ge=timedelta(seconds=1),
        description="How long a source rests after a training that gained nothing.",
    )
    min_samples: int = setting(200, ge=20, le=500, description="So many samples of a source are needed.")
    min_gain_percent: float = setting(
        5.0,
        ge=0,
        description="So much smaller than with the present dictionary held-out samples must become.",
    )
    drift_percent: float = setting(
        10.0, gt=0, le=100, description="So much worse than when it was trained a dictionary may become."
    )
    size: ByteCount = setting(64 * 1024, ge=16 * 1024, description="Of a dictionary at most, bytes.")
    sample_memory: ByteCount = setting(
        32 * 2**20, description="Memory that one process gives to samples; they are never stored."
    )
