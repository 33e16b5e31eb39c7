"""Storage: remotes by URL or by rclone's configuration, manifests, verified and resumable transfers, staging."""
