ALTER TABLE binance_liqs DROP COLUMN source;
