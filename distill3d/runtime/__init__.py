"""What every room stands on: device, logs, random streams, checkpoints, trial folders, files."""
