"""What works off SQS. Read only where SQS is used: its driver costs 25 MB."""
