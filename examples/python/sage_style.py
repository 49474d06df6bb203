"""A pipeline in the style of programs for SAGE: classes for everything, and a service that a sink calls.

Run it with ``python examples/python/sage_style.py``.
"""

from typing import Any

from sage.common.utils.logging.custom_logger import CustomLogger
from sage.core.api.function.batch_function import BatchFunction
from sage.core.api.function.keyby_function import KeyByFunction
from sage.core.api.function.map_function import MapFunction
from sage.core.api.function.sink_function import SinkFunction
from sage.core.api.local_environment import LocalEnvironment
from sage.core.api.service.base_service import BaseService


class Readings(BatchFunction):
    """Gives the readings of two sensors; ``None`` ends the batch."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.given = 0

    def execute(self) -> tuple[str, int] | None:
        if self.given == self.count:
            return None
        self.given += 1
        return ("kitchen" if self.given % 2 else "cellar"), 15 + self.given


class ToFahrenheit(MapFunction):
    def execute(self, reading: tuple[str, int]) -> tuple[str, float]:
        sensor, celsius = reading
        return sensor, celsius * 9 / 5 + 32


class Sensor(KeyByFunction):
    def execute(self, reading: tuple[str, float]) -> str:
        return reading[0]


class Archive(BaseService):
    """Keeps the readings of a sensor together."""

    def setup(self) -> None:
        self.readings: dict[str, list[float]] = {}

    def process(self, sensor: str, value: float) -> int:
        self.readings.setdefault(sensor, []).append(value)
        return len(self.readings[sensor])

    def cleanup(self) -> None:
        for sensor, values in sorted(self.readings.items()):
            print(f"{sensor}: {len(values)} readings, the highest {max(values):.1f} °F")


class Store(SinkFunction):
    def execute(self, reading: tuple[str, float]) -> None:
        sensor, value = reading
        number: Any = self.call_service("archive", sensor, value)
        self.logger.debug("%s, number %s", sensor, number)


def main() -> None:
    CustomLogger.disable_global_console_debug()
    env = LocalEnvironment("sensors")
    env.register_service("archive", Archive)
    env.from_batch(Readings, count=10).map(ToFahrenheit).keyby(Sensor).sink(Store, parallelism=2)
    env.submit(autostop=True)


if __name__ == "__main__":
    main()
