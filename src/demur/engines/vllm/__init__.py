"""vLLM: a recorder that gives the same folders, and a plugin that guards `vllm serve`. Needs the extra `vllm`.

Importing this imports nothing of vLLM.
"""
