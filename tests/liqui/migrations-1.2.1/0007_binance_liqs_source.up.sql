-- The exchange a liquidation came from; empty for rows collected before it was recorded.
ALTER TABLE binance_liqs ADD COLUMN source VARCHAR(255) NULL;
