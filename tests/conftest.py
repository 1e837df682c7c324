"""Settings of every test: properties are checked on the same examples each time, however busy the machine is."""

from hypothesis import HealthCheck, settings

settings.register_profile("distill3d", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("distill3d")
