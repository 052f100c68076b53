DROP INDEX idx_side_time ON binance_liqs;
