"""The Wasm sandbox: a zygote that forks locked-down workers, and the node's side of both.

launcher.py is the only module that the node service uses; zygote.py and worker.py run in other processes, memfd.py
carries the configuration and the module to them, lockdown.py takes power away, probe.py tries to get it back.
"""
