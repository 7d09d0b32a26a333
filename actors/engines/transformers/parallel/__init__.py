"""One engine over several ranks of an MPI program: tensor parallelism.

Each rank has its share of the heads of every attention and of the columns of every MLP, and the KV
of its heads under the same block numbers as the others. The first rank *leads*: it is the worker,
with scheduler, sampler and handoffs, and alone it knows requests. The others *follow*: they compute
what they are told to, a step at a time, and know nothing else.

Orders go over sockets (`line.py`), not over MPI: a rank that waits for a message of MPI spins on a
core, and engines are idle most of the time. Sums go over MPI on the CPU, NCCL on CUDA; in a step
every rank is at work, and a spinning wait is a short one.

    split.py       a loaded model cut down to one rank's share
    collective.py  the sum over ranks
    team.py        the leader's side      follower.py  the others'
    orders.py      what they say          line.py      over which wire

Where a process stands in its MPI program, `actors.engines.world` knows.
"""
