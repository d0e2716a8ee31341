"""The shared trainer: settings, schedules, solver, data, runs and the command that trains one."""

import os

# OpenMP's threads spin while they wait for each other, by default (300,000 turns) far beyond the gaps between this
# suite's operations; where another program takes a core, they spin for its whole time slice. Measured on 2 cores,
# 3-layer network, images/s at total batch 64 (16 pixels) and 128 (32 pixels), alone and beside four busy processes:
#   300,000 turns: 8,300 and 2,700 alone, 760 and 210 beside others
#         0 turns: 4,500 and 2,350 alone, 1,840 and 1,600 beside others
#    10,000 turns: 10,100 and 2,900 alone, 1,670 and 660 beside others
# Must be set before torch is imported; other OpenMP runtimes ignore it.
os.environ.setdefault("GOMP_SPINCOUNT", "10000")
