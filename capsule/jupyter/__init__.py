"""Sessions as Jupyter kernels: the sockets that notebooks and IDEs connect to, and the ways in which they start one."""
