-- All liquidations of one side over a time range.
CREATE INDEX idx_side_time ON binance_liqs (side, order_trade_time);
