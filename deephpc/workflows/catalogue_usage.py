"""How to use a module of the catalogue on this site, as commands."""

from deephpc.catalogue.module import Module, ModuleResources


def plan_usage(module: Module, commands: frozenset[str]) -> tuple[str, ...]:
    """Return the commands that use a module, with the resources its authors name.

    Parameters
    ----------
    commands
        The commands this deephpc has; others are not spoken of.
    """
    if not module.image:
        return ()
    lines = [("image", f"deephpc image pull {module.name}")]
    is_untold = not module.categories
    trains = module.is_trainable or is_untold
    predicts = module.has_inference or module.is_pre_trained or is_untold
    if is_untold:  # the module itself says what it can do
        lines.append(("module", f"deephpc module show {module.name}"))
    if trains:
        lines.append(("train", f"deephpc train {module.name}{_options(module.training)} --time 1:00:00"))
    if predicts:
        needs = _options(module.inference)
        lines.append(("predict", f"deephpc predict {module.name}{needs} --input 'NAME=FILES'"))
        lines.append(("serve", f"deephpc serve start {module.name}{needs} --time 1:00:00"))
    if not trains and not predicts:
        lines.append(("run", f"deephpc run {module.name} -- COMMAND"))
    return tuple(line for command, line in lines if command in commands)


def _options(needs: ModuleResources | None) -> str:
    if needs is None:
        return ""
    words = []
    if needs.gpus:
        words.append(f"--gpus-per-node {needs.gpus}")
    if needs.cpus:
        words.append(f"--cpus-per-task {needs.cpus}")
    if needs.memory_mb:
        words.append(f"--mem {max(1, round(needs.memory_mb * 1_000_000 / 1024**2))}M")
    return "".join(f" {word}" for word in words)
