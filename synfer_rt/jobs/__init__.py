"""What the commands do: sample, label and augment a dataset, and verify one."""
