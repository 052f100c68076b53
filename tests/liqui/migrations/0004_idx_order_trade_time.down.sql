DROP INDEX idx_order_trade_time ON binance_liqs;
