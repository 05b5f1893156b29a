"""What is kept on disk: run directories, checkpoints, and files that a crash cannot leave half written."""
