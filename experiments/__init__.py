"""The shared trainer: settings, schedules, solver, data, runs and the command that trains one."""

import os

# OpenMP's threads spin while they wait for each other. Where another program takes a core, as two figures at once do,
# a step of the 3-layer network then takes 6 to 8 times as long (107-147 against 920 images/s at a load of 5 on
# 2 cores). Must stand before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
