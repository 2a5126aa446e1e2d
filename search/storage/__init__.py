"""What has been trained, in an Optuna study: written as it comes, whole or not at all, and read by who resumes."""
